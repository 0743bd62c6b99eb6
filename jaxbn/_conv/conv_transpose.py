"""The transposed convolution: the input gradient of a convolution as a forward map (D5).

Forward:

    y(b, i, c) = Σ_k Σ_n x(b, p, k) · K(n, c, k) + bias(c)    over the p, n with p · stride + n · dilation − low = i

It is the bilinear map `input_gradient`, with ``x`` in place of ``dy``. So its gradients are the other two maps with the
roles of ``x`` and ``dy`` exchanged:

    dx    = Σ dy · K    the forward map of the convolution that is transposed    (D3)
    dK    = Σ dy · x    its kernel gradient, with dy as the input                (D7)
    dbias = Σ dy        over the batch and the outputs

The tangent of ``y``, for forward mode, is ``dy = Σ dx · K + Σ x · dK + dbias``, with the same sums as the forward.

Saved for the backward pass: ``x``, ``kernel`` and ``bias``, which the caller holds anyway.

References: Dumoulin and Visin (2016), *A guide to convolution arithmetic for deep learning*, for the shapes.
"""

from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxbn._channels import along_channels, channel_sum, widened
from jaxbn._conv.maps import convolution, input_gradient, kernel_gradient
from jaxbn._conv.options import ConvConfig, ConvOptions, DimensionNumbers, PaddingOption, Steps
from jaxbn._conv.spec import in_one_dtype
from jaxbn._sharding import vary_alike
from jaxbn._tangents import apply_tangent_map
from jaxbn._validation import as_arrays, public, require_bool


@public
def conv_transpose(
    x: Float[Array, "batch *spatial in"],
    kernel: Float[Array, "*window out_per_group in"],
    bias: Float[Array, " out"] | None = None,
    *,
    stride: Steps = 1,
    padding: PaddingOption = "SAME",
    output_padding: Steps = 0,
    dilation: Steps = 1,
    groups: int = 1,
    flip_kernel: bool = False,
    dimension_numbers: DimensionNumbers = None,
    precision: lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
    algorithm: str | None = None,
    forward_mode: bool = False,
) -> Float[Array, "batch *output out"]:
    """Computes a transposed convolution: the gradient of ``conv(·, kernel)`` with respect to its input, as a layer.

        y(b, i, c) = Σ_k Σ_n x(b, p, k) · K(n, c, k) + bias(c)    over the p, n with p · stride + n · dilation − low = i

    The gradients follow hand-written formulas: ``dx = conv(dy, K)``, ``dbias = Σ dy``, and ``dkernel`` is the kernel
    gradient of that convolution, with ``x`` and ``dy`` exchanged. Saved for the backward pass: ``x``, ``kernel`` and
    ``bias``.

    ``kernel`` and the options are those of the convolution that is transposed, which maps the output's channels to
    ``x``'s. To convert a kernel ``w`` of another library:

    - PyTorch's ``ConvTranspose2d`` has ``(in, out // groups, height, width)``: ``jnp.transpose(w, (2, 3, 1, 0))``. The
      options keep their values.
    - Flax's ``ConvTranspose`` and ``lax.conv_transpose`` have ``(height, width, in, out)``:
      ``jnp.flip(w, (0, 1)).swapaxes(2, 3)``. With ``transpose_kernel=True``, use ``w`` as it is.

    Args:
        x: The images, as in `conv`.
        kernel: The weights, ``(*window, out // groups, in)``, of ``x``'s dtype.
        bias: One number for each output channel, of any floating dtype; ``None`` adds nothing.
        padding: The padding of the convolution that is transposed; it makes the output smaller. ``"SAME"`` and
            ``"SAME_LOWER"`` give ``input · stride`` outputs, ``"VALID"`` gives
            ``input · stride + max(extent − stride, 0)`` with ``extent = dilation · (window − 1) + 1``, as in
            `jax.lax.conv_transpose`. Explicit padding gives
            ``(input − 1) · stride + extent − low − high + output_padding``, as in PyTorch.
        output_padding: Outputs to add at the end with explicit ``padding``, fewer than the stride or the dilation.
        stride, dilation, groups, flip_kernel, dimension_numbers, precision, preferred_element_type, algorithm: As in
            `conv`, for the convolution that is transposed; but ``dimension_numbers`` are those of this function's
            ``x``, ``kernel`` and ``y``.
        forward_mode: Whether forward mode works too, as in `conv`.

    Returns:
        ``(batch, *output, out)``, or in the order of ``dimension_numbers``, in ``x``'s dtype or
        ``preferred_element_type``.

    Raises:
        TypeError, ValueError: As in `conv`; or ``output_padding`` is too large, or is combined with a named
            ``padding``.

    Example:
        >>> import jax.numpy as jnp, jaxbn
        >>> x, kernel = jnp.ones((1, 4, 4, 8)), jnp.ones((3, 3, 2, 8))
        >>> jaxbn.conv_transpose(x, kernel, stride=2).shape
        (1, 8, 8, 2)

    References:
        Deck, D5, as a forward map.
    """
    x, kernel, bias = as_arrays("conv_transpose", x=x, kernel=kernel, bias=bias)
    require_bool("conv_transpose", "forward_mode", forward_mode)
    options = ConvOptions(
        function="conv_transpose",
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        dilation=dilation,
        groups=groups,
        flip_kernel=flip_kernel,
        dimension_numbers=dimension_numbers,
        precision=precision,
        preferred_element_type=preferred_element_type,
        algorithm=algorithm,
    )
    core = _conv_transpose_with_tangents if forward_mode else _conv_transpose
    y: Any = core(options.resolve_transposed(x, kernel, bias), *vary_alike(x, kernel, bias))
    return y


class _Residuals(NamedTuple):
    x: jax.Array  # the caller's array, in the caller's layout
    kernel: jax.Array  # the caller's array, in the caller's layout
    bias: jax.Array | None  # for its dtype


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _conv_transpose(config: ConvConfig, x: jax.Array, kernel: jax.Array, bias: jax.Array | None) -> jax.Array:
    return _conv_transpose_fwd(config, x, kernel, bias)[0]


def _conv_transpose_fwd(
    config: ConvConfig, x: jax.Array, kernel: jax.Array, bias: jax.Array | None
) -> tuple[jax.Array, _Residuals]:
    layout, spec, _ = config
    y = input_gradient(spec, layout.canonical_x(x), layout.canonical_kernel(kernel))
    y = y if bias is None else y + along_channels(bias, y)
    return layout.restore_y(y), _Residuals(x, kernel, bias)


def _conv_transpose_bwd(
    config: ConvConfig, residuals: _Residuals, dy: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    layout, spec, _ = config
    x, kernel, bias = residuals
    dy = layout.canonical_y(dy)
    dbias = None if bias is None else channel_sum(dy).astype(bias.dtype)
    dy, x, kernel = in_one_dtype(dy, layout.canonical_x(x), layout.canonical_kernel(kernel))
    dx = convolution(spec, dy, kernel).astype(residuals.x.dtype)  # D3
    dkernel = kernel_gradient(spec, dy, x).astype(residuals.kernel.dtype)  # D7
    return layout.restore_x(dx), layout.restore_kernel(dkernel), dbias


_conv_transpose.defvjp(_conv_transpose_fwd, _conv_transpose_bwd)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _conv_transpose_with_tangents(
    config: ConvConfig, x: jax.Array, kernel: jax.Array, bias: jax.Array | None
) -> jax.Array:
    return _conv_transpose_fwd(config, x, kernel, bias)[0]


def _conv_transpose_jvp(
    config: ConvConfig, primals: tuple[Any, ...], tangents: tuple[Any, ...]
) -> tuple[jax.Array, jax.Array]:
    y, residuals = _conv_transpose_fwd(config, *primals)
    return y, apply_tangent_map(partial(_conv_transpose_tangent, config), residuals, tangents)


def _conv_transpose_tangent(
    config: ConvConfig,
    residuals: _Residuals,
    dx: jax.Array | None,
    dkernel: jax.Array | None,
    dbias: jax.Array | None,
) -> jax.Array:
    """Compute the tangent ``dy = Σ dx · K + Σ x · dK + dbias``. ``None`` stands for a zero tangent."""
    layout, spec, _ = config
    x, kernel, _ = residuals
    if dx is None and dkernel is None:  # There must be one product, for the shape of y.
        dkernel = jnp.zeros_like(kernel)
    products = [
        input_gradient(spec, layout.canonical_x(left), layout.canonical_kernel(right))
        for left, right in ((dx, kernel), (x, dkernel))
        if left is not None and right is not None
    ]
    # Add in at least float32, because the transpose of adding dbias is a sum.
    dy = reduce(jnp.add, map(widened, products))
    dy = dy if dbias is None else dy + along_channels(dbias, dy)
    return layout.restore_y(dy.astype(products[0].dtype))


_conv_transpose_with_tangents.defjvp(_conv_transpose_jvp, symbolic_zeros=True)
