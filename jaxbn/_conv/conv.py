"""The convolution, with the deck's gradients (D3, D5, D7).

Forward:

    y(b, p, k) = Σ_c Σ_n x(b, p · stride + n · dilation − low, c) · K(n, c, k) + bias(k)

The sum is linear in ``x`` and in ``K``, so each gradient is such a sum with ``dy = ∂Loss/∂y`` in place of one factor:

    dx    = Σ dy · K    over the outputs and taps that meet an input     (D5, D6)
    dK    = Σ x · dy    over the batch and the outputs                   (D7, D8)
    dbias = Σ dy        over the batch and the outputs                   (the deck leaves it out)

A border that is not zeros is added to ``x`` first, and its gradient is added to dx at the end (`jaxbn._conv.borders`).

These sums are the bilinear maps of `jaxbn._conv.maps`; `jaxbn._conv.geometry` has the index arithmetic.

The tangent of ``y``, for forward mode, follows from the derivative of a product:

    dy = Σ dx · K + Σ x · dK + dbias

Saved for the backward pass: ``x``, ``kernel`` and ``bias``, which the caller holds anyway.

References: the deck's *Back-propagation at the convolution layer*; Dumoulin and Visin (2016), *A guide to convolution
arithmetic for deep learning*.
"""

from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxbn._channels import along_channels, channel_sum, widened
from jaxbn._conv.borders import fold, pad
from jaxbn._conv.maps import convolution, input_gradient, kernel_gradient
from jaxbn._conv.options import ConvConfig, ConvOptions, DimensionNumbers, PaddingOption, Steps
from jaxbn._conv.spec import in_one_dtype
from jaxbn._sharding import vary_alike
from jaxbn._tangents import apply_tangent_map
from jaxbn._validation import as_arrays, public, require_bool


@public
def conv(
    x: Float[Array, "batch *spatial in"],
    kernel: Float[Array, "*window in_per_group out"],
    bias: Float[Array, " out"] | None = None,
    *,
    stride: Steps = 1,
    padding: PaddingOption = "VALID",
    padding_mode: str | tuple[str, ...] = "zeros",
    dilation: Steps = 1,
    groups: int = 1,
    flip_kernel: bool = False,
    dimension_numbers: DimensionNumbers = None,
    precision: lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
    algorithm: str | None = None,
    forward_mode: bool = False,
) -> Float[Array, "batch *output out"]:
    """Convolves a batch of images with a kernel: every output is a weighted sum of the inputs in a window.

        y(b, p, k) = Σ_c Σ_n x(b, p · stride + n · dilation − low, c) · K(n, c, k) + bias(k)

    ``b`` is an image, with 1, 2 or 3 spatial axes, ``p`` a position in the output, ``n`` one in the window (a tap),
    ``c`` and ``k`` are an input and an output channel, and ``low`` is the padding in front. As in JAX, Flax and
    PyTorch, the kernel is not rotated (D1); ``flip_kernel`` gives the deck's convolution (D3).

    The gradients follow hand-written formulas, with ``dy = ∂Loss/∂y``:

        dx      = Σ dy · K    over the outputs and taps that meet an input    (D5)
        dkernel = Σ x · dy    over the batch and the outputs                  (D7)
        dbias   = Σ dy        over the batch and the outputs

    Saved for the backward pass: ``x``, ``kernel`` and ``bias``. Gradients of any order work, and `jax.jvp` of a
    gradient, as in `jax.hessian`.

    Args:
        x: The images, ``(batch, *spatial, in)``, of any floating dtype.
        kernel: The weights, ``(*window, in // groups, out)``, of ``x``'s dtype.
        bias: One number for each output channel, of any floating dtype; ``None`` adds nothing.
        stride: The distance between neighbouring windows: an int, or one for each spatial axis.
        padding: The width of the border: ``"VALID"`` (none), ``"SAME"`` (``⌈input / stride⌉`` outputs; an odd entry is
            at the end), ``"SAME_LOWER"`` (an odd entry is in front), ``"CAUSAL"`` (all in front: a window ends at the
            position of its output), an int for all sides, or a tuple with an int or a pair ``(low, high)`` for each
            axis. Negative numbers crop. ``"REFLECT"``, ``"REPLICATE"`` and ``"CIRCULAR"`` are ``"SAME"`` with that
            ``padding_mode``.
        padding_mode: The entries of the border: ``"zeros"``, ``"reflect"`` (the image mirrored at its last entry),
            ``"replicate"`` (its last entry repeated), ``"circular"`` (the image repeated), or a tuple with one for each
            spatial axis. The backward pass computes the padded image again.
        dilation: The distance between neighbouring taps of the kernel: an int, or one for each spatial axis.
        groups: The number of groups of channels, which are convolved separately; ``in`` groups make a depthwise
            convolution.
        flip_kernel: Whether to rotate the kernel by 180°.
        dimension_numbers: The order of the axes of ``x``, ``kernel`` and ``y``, as in `jax.lax.conv_dimension_numbers`,
            such as ``("NCHW", "OIHW", "NCHW")`` for PyTorch's; ``None`` is channels last.
        precision: The precision of the products, as in `jax.lax.conv_general_dilated`, in the gradients too.
        preferred_element_type: The dtype of sums, and of ``y``; ``None`` is ``x``'s. The gradients are summed in it
            too, and returned in ``x``'s dtype. Their products are formed in ``x``'s dtype, but in ``dy``'s if ``x`` is
            float16, whose range is too small.
        algorithm: The algorithm for the convolution and its gradients; ``None`` chooses the fastest for each of them.
            `explain_conv` shows the choices.
        forward_mode: Whether forward mode works too, and any nesting of forward and reverse mode, with the same values.
            By default there is only a reverse-mode rule (a `jax.custom_vjp`), so `jax.jvp`, `jax.linearize` and
            `jax.jacfwd` raise an error. With True there is a tangent rule (a `jax.custom_jvp`), which reverse mode
            transposes: ``dy = conv(dx, K) + conv(x, dK) + dbias``.

    Returns:
        ``(batch, *output, out)``, or in the order of ``dimension_numbers``, in ``x``'s dtype or
        ``preferred_element_type``.

    Raises:
        TypeError: A dtype is not a real floating one, ``x`` and ``kernel`` differ in dtype, or an option has the wrong
            type.
        ValueError: Ranks, channels, sizes or options do not fit together.

    Example:
        >>> import jax, jax.numpy as jnp, jaxbn
        >>> x, kernel = jnp.ones((1, 5, 5, 1)), jnp.ones((3, 3, 1, 2))
        >>> jaxbn.conv(x, kernel, jnp.zeros(2)).shape
        (1, 3, 3, 2)
        >>> print(jax.grad(lambda x: jaxbn.conv(x, kernel)[0, 0, 0, 0])(x).sum())
        9.0

    References:
        Deck, D1 to D9.
    """
    x, kernel, bias = as_arrays("conv", x=x, kernel=kernel, bias=bias)
    require_bool("conv", "forward_mode", forward_mode)
    options = ConvOptions(
        function="conv",
        stride=stride,
        padding=padding,
        padding_mode=padding_mode,
        dilation=dilation,
        groups=groups,
        flip_kernel=flip_kernel,
        dimension_numbers=dimension_numbers,
        precision=precision,
        preferred_element_type=preferred_element_type,
        algorithm=algorithm,
    )
    core = _conv_with_tangents if forward_mode else _conv
    y: Any = core(options.resolve(x, kernel, bias), *vary_alike(x, kernel, bias))
    return y


class ConvResiduals(NamedTuple):
    x: jax.Array  # the caller's array, in the caller's layout
    kernel: jax.Array  # the caller's array, in the caller's layout
    bias: jax.Array | None  # for its dtype


# `convolution` is a primitive with derivatives, so JAX could differentiate the forward by itself. The rule is written
# out because that is this library's purpose: gradients that people can read. It also saves the caller's own arrays
# where autodiff would save them transposed to channels last.
@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _conv(config: ConvConfig, x: jax.Array, kernel: jax.Array, bias: jax.Array | None) -> jax.Array:
    return conv_fwd(config, x, kernel, bias)[0]


def conv_fwd(
    config: ConvConfig, x: jax.Array, kernel: jax.Array, bias: jax.Array | None
) -> tuple[jax.Array, ConvResiduals]:
    layout, spec, borders = config
    y = convolution(spec, pad(layout.canonical_x(x), borders), layout.canonical_kernel(kernel))
    y = y if bias is None else y + along_channels(bias, y)
    return layout.restore_y(y), ConvResiduals(x, kernel, bias)


def conv_bwd(
    config: ConvConfig, residuals: ConvResiduals, dy: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    layout, spec, borders = config
    x, kernel, bias = residuals
    dy = layout.canonical_y(dy)
    dbias = None if bias is None else channel_sum(dy).astype(bias.dtype)
    dy, x, kernel = in_one_dtype(dy, pad(layout.canonical_x(x), borders), layout.canonical_kernel(kernel))
    dx = fold(input_gradient(spec, dy, kernel), borders).astype(residuals.x.dtype)  # D5
    dkernel = kernel_gradient(spec, x, dy).astype(residuals.kernel.dtype)  # D7
    return layout.restore_x(dx), layout.restore_kernel(dkernel), dbias


_conv.defvjp(conv_fwd, conv_bwd)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _conv_with_tangents(config: ConvConfig, x: jax.Array, kernel: jax.Array, bias: jax.Array | None) -> jax.Array:
    return conv_fwd(config, x, kernel, bias)[0]


def _conv_jvp(config: ConvConfig, primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[jax.Array, jax.Array]:
    y, residuals = conv_fwd(config, *primals)
    return y, apply_tangent_map(partial(conv_tangent, config), residuals, tangents)


def conv_tangent(
    config: ConvConfig,
    residuals: ConvResiduals,
    dx: jax.Array | None,
    dkernel: jax.Array | None,
    dbias: jax.Array | None,
) -> jax.Array:
    """Compute the tangent ``dy = conv(dx, K) + conv(x, dK) + dbias``. ``None`` stands for a zero tangent."""
    layout, spec, borders = config
    x, kernel, _ = residuals
    if dx is None and dkernel is None:  # There must be one product, for the shape of y.
        dkernel = jnp.zeros_like(kernel)
    products = [
        convolution(spec, pad(layout.canonical_x(left), borders), layout.canonical_kernel(right))
        for left, right in ((dx, kernel), (x, dkernel))
        if left is not None and right is not None
    ]
    # Add in at least float32, because the transpose of adding dbias is a sum.
    dy = reduce(jnp.add, map(widened, products))
    dy = dy if dbias is None else dy + along_channels(dbias, dy)
    return layout.restore_y(dy.astype(products[0].dtype))


_conv_with_tangents.defjvp(_conv_jvp, symbolic_zeros=True)
