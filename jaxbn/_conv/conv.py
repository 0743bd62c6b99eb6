"""The convolution, with the deck's gradients (D3, D5, D7).

Forward:

    y(b, p, k) = Σ_c Σ_n x(b, p · stride + n · dilation − low, c) · K(n, c, k) + bias(k)

The sum is linear in ``x`` and in ``K``, so with ``dy = ∂Loss/∂y`` each gradient is the sum with the roles exchanged:

    dx    = Σ dy · K    over the outputs and taps that meet an input     (D5, D6)
    dK    = Σ x · dy    over the batch and the outputs                   (D7, D8)
    dbias = Σ dy        over the batch and the outputs                   (the deck leaves it out)

A border that is not of zeros is added to ``x`` before, and dx is folded back after (`jaxbn._conv.borders`).

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

    ``b`` is an image, ``p`` a position in the output, ``n`` a position in the window (a tap), ``c`` an input channel,
    ``k`` an output channel, and ``low`` the padding in front. An image has 1, 2 or 3 spatial axes.

    As in JAX, Flax and PyTorch, the kernel is not rotated: this is a cross-correlation (D1). With ``flip_kernel`` it is
    rotated by 180° first, and the result is the convolution of the deck (D3).

    The gradients are computed by hand-written formulas, from the gradient ``dy`` with respect to ``y``:
    ``dx = Σ dy · K`` over the outputs that an input contributes to (D5), ``dkernel = Σ x · dy`` over the batch and the
    outputs (D7), and ``dbias = Σ dy``. Only ``x``, ``kernel`` and ``bias`` themselves are saved for the backward pass.
    Gradients of gradients work to every order, and so does `jax.jvp` of a gradient, as in `jax.hessian`. For `jax.jvp`,
    `jax.linearize` or `jax.jacfwd` of `conv` itself, pass ``forward_mode=True``.

    Args:
        x: The images, ``(batch, *spatial, in)``, of any floating dtype. ``dimension_numbers`` may order the axes
            otherwise.
        kernel: The weights, ``(*window, in // groups, out)``, of ``x``'s dtype.
        bias: One number for each output channel, of any floating dtype; ``None`` adds nothing.
        stride: The distance between neighbouring windows, an int or one for each spatial axis.
        padding: How many zeros surround an image: ``"VALID"`` (none), ``"SAME"`` (as many as give
            ``⌈input / stride⌉`` outputs, an odd one at the end), ``"SAME_LOWER"`` (an odd one in front), an int for
            both sides of every axis, or a tuple with an int or a pair ``(low, high)`` for each axis. Negative numbers
            crop. ``"CAUSAL"`` puts so many in front that the window of an output ends at the output's own place.
            ``"REFLECT"``, ``"REPLICATE"`` and ``"CIRCULAR"`` are ``"SAME"`` with that ``padding_mode``.
        padding_mode: What surrounds an image, with the widths of ``padding``: ``"zeros"``; ``"reflect"``, the image in
            a mirror at its last entry; ``"replicate"``, its last entry again and again; ``"circular"``, the image once
            more, from its other side; or a tuple with one for each spatial axis. The padded image is computed again in
            the backward pass, and not saved.
        dilation: The distance between neighbouring taps of the kernel, an int or one for each spatial axis.
        groups: The channels are divided into so many blocks, which are convolved separately; ``in`` of them make a
            depthwise convolution.
        flip_kernel: Whether to rotate the kernel by 180°.
        dimension_numbers: The order of the axes of ``x``, ``kernel`` and ``y``, as `jax.lax.conv_dimension_numbers`
            takes it, such as ``("NCHW", "OIHW", "NCHW")`` for PyTorch's; ``None`` is channels last.
        precision: The precision of the products, as `jax.lax.conv_general_dilated` takes it; the gradients use it too.
        preferred_element_type: The dtype in which products are summed and that ``y`` has; ``None`` is ``x``'s. The
            gradients are summed in it too, and returned in ``x``'s dtype. Their products are formed in ``x``'s dtype,
            except for float16, whose range is too small: then they are formed in ``dy``'s.
        algorithm: The name of the algorithm that computes the convolution and its gradients; ``None`` lets jaxbn choose
            the fastest for each. `explain_conv` lists the choices.
        forward_mode: Whether forward mode works too, and any nesting of forward and reverse mode. The values are the
            same. By default the function has a reverse-mode rule alone (a `jax.custom_vjp`), for which `jax.jvp`,
            `jax.linearize` and `jax.jacfwd` raise an error. With True it has a tangent rule (a `jax.custom_jvp`),
            ``dy = conv(dx, K) + conv(x, dK) + dbias``, and reverse mode transposes that rule.

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
    """``dy`` (D3); a tangent that is ``None`` is zero."""
    layout, spec, borders = config
    x, kernel, _ = residuals
    if dx is None and dkernel is None:  # There must be one product, for the shape of y.
        dkernel = jnp.zeros_like(kernel)
    products = [
        convolution(spec, pad(layout.canonical_x(left), borders), layout.canonical_kernel(right))
        for left, right in ((dx, kernel), (x, dkernel))
        if left is not None and right is not None
    ]
    # In at least float32, because the transpose of the addition of dbias is a sum.
    dy = reduce(jnp.add, map(widened, products))
    dy = dy if dbias is None else dy + along_channels(dbias, dy)
    return layout.restore_y(dy.astype(products[0].dtype))


_conv_with_tangents.defjvp(_conv_jvp, symbolic_zeros=True)
