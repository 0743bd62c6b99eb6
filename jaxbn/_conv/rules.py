"""Convolution and its transpose, with the deck's gradients (D3, D5, D7).

Forward:

    y(b, p, k) = Σ_c Σ_n x(b, p · stride + n · dilation − low, c) · K(n, c, k) + bias(k)

The sum is linear in ``x`` and in ``K``, so with ``dy = ∂Loss/∂y`` each gradient is the sum with the roles exchanged:

    dx    = Σ dy · K    over the outputs and taps that meet an input     (D5, D6)
    dK    = Σ x · dy    over the batch and the outputs                   (D7, D8)
    dbias = Σ dy        over the batch and the outputs                   (the deck leaves it out)

These are the maps of `jaxbn._conv.maps`, where the index arithmetic is. A transposed convolution is the same three with
other names: its forward is the input gradient, its input's gradient the forward.

Saved for the backward pass: ``x`` and ``kernel``, which the caller holds anyway; nothing is added.

References: the deck's *Back-propagation at the convolution layer*; Dumoulin and Visin (2016), *A guide to convolution
arithmetic for deep learning*, for the transposed convolution's shapes.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxbn._channels import along_channels, channel_sum
from jaxbn._conv.arguments import Options, arithmetic_of, conv_arguments, conv_transpose_arguments
from jaxbn._conv.arithmetic import Arithmetic, like_operand
from jaxbn._conv.geometry import ConvGeometry
from jaxbn._conv.layout import Layout
from jaxbn._conv.maps import convolve, input_gradient, kernel_gradient
from jaxbn._sharding import vary_alike
from jaxbn._validation import as_arrays, public


@public
def conv(
    x: Float[Array, "batch *spatial in"],
    kernel: Float[Array, "*window in_per_group out"],
    bias: Float[Array, " out"] | None = None,
    *,
    stride: int | tuple[int, ...] = 1,
    padding: str | int | tuple[int | tuple[int, int], ...] = "VALID",
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
    flip_kernel: bool = False,
    dimension_numbers: Any = None,
    precision: lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
    algorithm: str | None = None,
) -> Float[Array, "batch *output out"]:
    """Convolves ``x`` with ``kernel`` in 1, 2 or 3 spatial dimensions and adds ``bias``.

        y(b, p, k) = Σ_c Σ_n x(b, p · stride + n · dilation − low, c) · K(n, c, k) + bias(k)

    Gradients, by hand: ``dx = Σ dy · K``, ``dkernel = Σ x · dy``, ``dbias = Σ dy``, over all that is not on the left.
    Saved for the backward pass: ``x`` and ``kernel``. Reverse mode of any order, and forward mode over reverse;
    forward mode alone raises JAX's error here and works through `convolve` and `conv_general_dilated`.

    As in JAX, Flax and PyTorch, this is a cross-correlation (D1). With ``flip_kernel`` the kernel is rotated by 180°
    first, and it is the convolution of the deck (D3).

    Args:
        x: Images, float of any width, channels last unless ``dimension_numbers`` says otherwise.
        kernel: Filters, ``(*window, in // groups, out)``, of ``x``'s dtype.
        bias: One number for each output channel, of any floating dtype; ``None`` adds nothing.
        stride: Steps between windows, an int or one for each spatial axis.
        padding: ``"VALID"`` (none), ``"SAME"`` (``⌈input / stride⌉`` outputs, the odd zero above), ``"SAME_LOWER"``
            (the odd zero below), an int for both sides of every axis, or a tuple with an int or a pair ``(low, high)``
            for each; negative ones crop.
        dilation: Steps between the kernel's taps, an int or one for each spatial axis.
        groups: Blocks of channels that do not see each other; ``in`` for a depthwise convolution.
        flip_kernel: Whether to rotate the kernel by 180°.
        dimension_numbers: The axes of ``x``, ``kernel`` and ``y`` as `jax.lax.conv_dimension_numbers` reads them, such
            as ``("NCHW", "OIHW", "NCHW")``; ``None`` is channels last.
        precision: As in `jax.lax.conv_general_dilated`, for the gradients too.
        preferred_element_type: Dtype of the sums and of ``y``; ``None`` is ``x``'s. The gradients take their operands
            in ``x``'s dtype (float16 is widened, its range is too small), sum in this one, come back in ``x``'s.
        algorithm: The name of the one that runs the convolution and its gradients; ``None`` lets each have the best,
            which `explain_conv` tells.

    Returns:
        ``(batch, *output, out)``, or as ``dimension_numbers`` says, in ``x``'s dtype or ``preferred_element_type``.

    Raises:
        TypeError: A dtype is not a real floating one, or ``x`` and ``kernel`` differ in it; an option is not an int.
        ValueError: Ranks, channels, lengths or options do not fit together.

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
    options = Options(
        "conv", stride, padding, dilation, groups, flip_kernel, dimension_numbers, preferred_element_type, algorithm
    )
    layout, geometry = conv_arguments(options, x, kernel, bias)
    config = ConvConfig(layout, flip_kernel, geometry, arithmetic_of(options, geometry, precision))
    y: Any = _conv(config, *vary_alike(x, kernel, bias))
    return y


class ConvConfig(NamedTuple):
    layout: Layout
    flip_kernel: bool
    geometry: ConvGeometry
    arithmetic: Arithmetic

    @property
    def how(self) -> tuple[ConvGeometry, Arithmetic]:
        """What the maps ask for."""
        return self.geometry, self.arithmetic


class ConvResiduals(NamedTuple):
    x: jax.Array  # the caller's own, in the caller's layout
    kernel: jax.Array  # the caller's own, in the caller's layout
    bias: jax.Array | None  # the caller's own, for its dtype


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _conv(config: ConvConfig, x: jax.Array, kernel: jax.Array, bias: jax.Array | None) -> jax.Array:
    return conv_fwd(config, x, kernel, bias)[0]


def conv_fwd(
    config: ConvConfig, x: jax.Array, kernel: jax.Array, bias: jax.Array | None
) -> tuple[jax.Array, ConvResiduals]:
    layout, flip, how = config.layout, config.flip_kernel, config.how
    y = convolve(*how, layout.canonical_x(x), layout.canonical_kernel(kernel, flip=flip))
    return layout.restore_y(_plus_bias(y, bias)), ConvResiduals(x, kernel, bias)


def conv_bwd(
    config: ConvConfig, residuals: ConvResiduals, dy: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    layout, flip, how = config.layout, config.flip_kernel, config.how
    dy = layout.canonical_y(dy)
    x, kernel = layout.canonical_x(residuals.x), layout.canonical_kernel(residuals.kernel, flip=flip)
    dx = input_gradient(*how, *like_operand(dy, kernel)).astype(x.dtype)
    dkernel = kernel_gradient(*how, *like_operand(dy, x)[::-1]).astype(kernel.dtype)
    dbias = _bias_gradient(dy, residuals.bias)
    return layout.restore_x(dx), layout.restore_kernel(dkernel, flip=flip), dbias


_conv.defvjp(conv_fwd, conv_bwd)


@public
def conv_transpose(
    x: Float[Array, "batch *spatial in"],
    kernel: Float[Array, "*window out_per_group in"],
    bias: Float[Array, " out"] | None = None,
    *,
    stride: int | tuple[int, ...] = 1,
    padding: str | int | tuple[int | tuple[int, int], ...] = "SAME",
    output_padding: int | tuple[int, ...] = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
    flip_kernel: bool = False,
    dimension_numbers: Any = None,
    precision: lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
    algorithm: str | None = None,
) -> Float[Array, "batch *output out"]:
    """Transposes a convolution: the gradient of ``conv(·, kernel)`` with respect to its input, as a layer.

        y(b, i, c) = Σ_k Σ_n x(b, p, k) · K(n, c, k) + bias(c)    over the p, n with p · stride + n · dilation − low = i

    Gradients, by hand: ``dx = conv(dy, K)``, ``dkernel`` is the kernel gradient of that convolution with the roles of
    ``x`` and ``dy`` exchanged, ``dbias = Σ dy``. Saved for the backward pass: ``x`` and ``kernel``.

    ``kernel``, ``stride``, ``padding``, ``dilation``, ``groups`` and ``flip_kernel`` are those of the convolution that
    is transposed, which maps the output's channels to ``x``'s. To bring over a kernel ``w`` of

    - PyTorch's ``ConvTranspose2d``, ``(in, out // groups, height, width)``: ``jnp.transpose(w, (2, 3, 1, 0))``; the
      options keep their values.
    - Flax's ``ConvTranspose`` or ``lax.conv_transpose``, ``(height, width, in, out)``: rotate it and exchange its
      channels, ``jnp.flip(w, (0, 1)).swapaxes(2, 3)``; with ``transpose_kernel=True`` it is right as it is.

    Args:
        x: As in `conv`.
        kernel: ``(*window, out // groups, in)``, of ``x``'s dtype.
        bias: As in `conv`.
        stride: As in `conv`; the output is about so many times larger than ``x``.
        padding: As in `conv`. ``"SAME"`` and ``"SAME_LOWER"`` give ``input · stride`` outputs, ``"VALID"``
            ``input · stride + max(extent − stride, 0)`` with ``extent = dilation · (window − 1) + 1``, as in
            `jax.lax.conv_transpose`; explicit ones
            ``(input − 1) · stride + extent − low − high + output_padding``, as in PyTorch.
        output_padding: Outputs added at the high end with explicit ``padding``; below the stride or the dilation.
        dilation: As in `conv`.
        groups: As in `conv`.
        flip_kernel: As in `conv`.
        dimension_numbers: As in `conv`: the axes of this function's ``x``, ``kernel`` and ``y``.
        precision: As in `conv`.
        preferred_element_type: As in `conv`.
        algorithm: As in `conv`, for the convolution that is transposed.

    Returns:
        ``(batch, *output, out)``, or as ``dimension_numbers`` says, in ``x``'s dtype or ``preferred_element_type``.

    Raises:
        TypeError: As in `conv`.
        ValueError: As in `conv`; or ``output_padding`` is too large or goes with a padding's name.

    Example:
        >>> import jax.numpy as jnp, jaxbn
        >>> x, kernel = jnp.ones((1, 4, 4, 8)), jnp.ones((3, 3, 2, 8))
        >>> jaxbn.conv_transpose(x, kernel, stride=2).shape
        (1, 8, 8, 2)

    References:
        Deck, D5 as a forward.
    """
    x, kernel, bias = as_arrays("conv_transpose", x=x, kernel=kernel, bias=bias)
    options = Options(
        "conv_transpose",
        stride,
        padding,
        dilation,
        groups,
        flip_kernel,
        dimension_numbers,
        preferred_element_type,
        algorithm,
        output_padding,
    )
    layout, geometry = conv_transpose_arguments(options, x, kernel, bias)
    config = ConvConfig(layout, flip_kernel, geometry, arithmetic_of(options, geometry, precision))
    y: Any = _conv_transpose(config, *vary_alike(x, kernel, bias))
    return y


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _conv_transpose(config: ConvConfig, x: jax.Array, kernel: jax.Array, bias: jax.Array | None) -> jax.Array:
    return _conv_transpose_fwd(config, x, kernel, bias)[0]


def _conv_transpose_fwd(
    config: ConvConfig, x: jax.Array, kernel: jax.Array, bias: jax.Array | None
) -> tuple[jax.Array, ConvResiduals]:
    layout, flip, how = config.layout, config.flip_kernel, config.how
    y = input_gradient(*how, layout.canonical_x(x), layout.canonical_kernel(kernel, flip=flip))
    return layout.restore_y(_plus_bias(y, bias)), ConvResiduals(x, kernel, bias)


def _conv_transpose_bwd(
    config: ConvConfig, residuals: ConvResiduals, dy: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    layout, flip, how = config.layout, config.flip_kernel, config.how
    dy = layout.canonical_y(dy)
    x, kernel = layout.canonical_x(residuals.x), layout.canonical_kernel(residuals.kernel, flip=flip)
    dx = convolve(*how, *like_operand(dy, kernel)).astype(x.dtype)
    dkernel = kernel_gradient(*how, *like_operand(dy, x)).astype(kernel.dtype)
    dbias = _bias_gradient(dy, residuals.bias)
    return layout.restore_x(dx), layout.restore_kernel(dkernel, flip=flip), dbias


_conv_transpose.defvjp(_conv_transpose_fwd, _conv_transpose_bwd)


def _plus_bias(y: jax.Array, bias: jax.Array | None) -> jax.Array:
    return y if bias is None else y + along_channels(bias, y)


def _bias_gradient(dy: jax.Array, bias: jax.Array | None) -> jax.Array | None:
    """``Σ dy`` over all but the channels, which the deck leaves out: the bias is added once to each output."""
    return None if bias is None else channel_sum(dy).astype(bias.dtype)
