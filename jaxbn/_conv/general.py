"""`jax.lax.conv_general_dilated` by the three bilinear maps; it can replace ``jax.lax``'s function everywhere."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from jaxbn._conv.geometry import ConvGeometry, Sizes, dilated_extent
from jaxbn._conv.layout import CHANNELS_LAST, Layout
from jaxbn._conv.maps import convolution
from jaxbn._conv.original import lax_conv_general_dilated
from jaxbn._conv.spec import Arithmetic, ConvSpec, precision_in_context
from jaxbn._validation import public


@public
def conv_general_dilated(
    lhs: Any,
    rhs: Any,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
    out_sharding: Any = None,
) -> jax.Array:
    """Convolves exactly as `jax.lax.conv_general_dilated` does, with the same signature and this library's gradients.

        y(b, p, k) = Σ_c Σ_n lhs(b, i, c) · rhs(n, c, k)    with i · lhs_dilation = p · stride + n · rhs_dilation − low

    Forward mode, reverse mode and any nesting of them work. The derivatives are the input gradient and the kernel
    gradient (D5, D7), whose derivatives are again among the three maps. Saved for the backward pass: ``lhs`` and
    ``rhs``.

    Policies of `jax.checkpoint` that save the results of products do not recognise this function, so its result is
    recomputed. `jax.experimental.jet` works through it. Through a function with a `jax.custom_vjp`, such as `conv`, jet
    works only if the gradient is taken inside.

    Args:
        lhs, rhs: The operands, as in ``lax``.
        window_strides, padding, lhs_dilation, rhs_dilation, feature_group_count, batch_group_count, precision: As in
            ``lax``.
        dimension_numbers: As in ``lax``: ``None`` is channels *first*, unlike in `conv`.
        preferred_element_type: As in ``lax``, except that the derivatives cast the cotangent to the operands' dtype or,
            if that is float16, the operands to the cotangent's.
        out_sharding: As in ``lax``; if it is given, ``lax``'s function computes the result.

    Returns:
        The result of the convolution, as in ``lax``.

    Raises:
        TypeError, ValueError: As in ``lax``.

    Example:
        >>> import jax.numpy as jnp, jaxbn
        >>> x, kernel = jnp.ones((1, 3, 8, 8)), jnp.ones((4, 3, 3, 3))
        >>> jaxbn.conv_general_dilated(x, kernel, (1, 1), "SAME").shape
        (1, 4, 8, 8)

    References:
        Deck, D1 to D9.
    """
    lax_convolution = partial(
        lax_conv_general_dilated,
        window_strides=window_strides,
        padding=padding,
        lhs_dilation=lhs_dilation,
        rhs_dilation=rhs_dilation,
        dimension_numbers=dimension_numbers,
        feature_group_count=feature_group_count,
        batch_group_count=batch_group_count,
        precision=precision,
        preferred_element_type=preferred_element_type,
        out_sharding=out_sharding,
    )
    expected = jax.eval_shape(lax_convolution, lhs, rhs)  # Raises lax's error if lax refuses the arguments.
    is_exact = not jnp.issubdtype(expected.dtype, jnp.inexact)
    if lhs.ndim not in CHANNELS_LAST or out_sharding is not None or 0 in rhs.shape or is_exact:
        return lax_convolution(lhs, rhs)
    layout = Layout.of(lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers))
    x = _groups_to_features(layout.canonical_x(jnp.asarray(lhs)), batch_group_count)
    kernel = layout.canonical_kernel(jnp.asarray(rhs))
    _, *input_, in_features = x.shape
    *window, _, out_features = kernel.shape
    stride, dilation, input_dilation = (
        _steps(steps, len(window)) for steps in (window_strides, rhs_dilation, lhs_dilation)
    )
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(input_, dilated_extent(tuple(window), dilation), stride, padding)
    geometry = ConvGeometry(
        input=tuple(input_),
        window=tuple(window),
        in_features=in_features,
        out_features=out_features,
        stride=stride,
        padding=tuple((low, high) for low, high in padding),
        dilation=dilation,
        groups=feature_group_count * batch_group_count,  # One of them is 1.
        input_dilation=input_dilation,
    )
    result_type = None if preferred_element_type is None else expected.dtype
    spec = ConvSpec(geometry, Arithmetic(precision_in_context(precision), result_type))
    return layout.restore_y(convolution(spec, x, kernel))


def lax_style_conv_transpose(
    lhs: jax.Array,
    rhs: jax.Array,
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    transpose_kernel: bool = False,
    precision: lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
) -> jax.Array:
    """Compute `jax.lax.conv_transpose` by `conv_general_dilated`, for layers of other libraries, which use its padding.

    Channels are last unless ``dimension_numbers`` says otherwise. Explicit ``padding`` is that of the dilated input.
    """
    spatial = lhs.ndim - 2
    axes = "DHW"[3 - spatial :]
    layout = lax.conv_dimension_numbers(
        lhs.shape, rhs.shape, dimension_numbers or (f"N{axes}C", f"{axes}IO", f"N{axes}C")
    )
    out_axis, in_axis, *window_axes = layout.rhs_spec
    if isinstance(padding, str):
        extent = dilated_extent(tuple(rhs.shape[axis] for axis in window_axes), _steps(rhs_dilation, spatial))
        padding = [_transposed_padding(*sizes, padding) for sizes in zip(extent, strides, strict=True)]
    if transpose_kernel:
        rhs = jnp.flip(rhs, window_axes).swapaxes(out_axis, in_axis)
    return conv_general_dilated(
        lhs,
        rhs,
        (1,) * spatial,
        padding,
        strides,
        rhs_dilation,
        layout,
        precision=precision,
        preferred_element_type=preferred_element_type,
    )


def _transposed_padding(width: int, stride: int, padding: str) -> tuple[int, int]:
    if padding not in ("SAME", "VALID"):
        raise ValueError(
            f"conv_transpose: `padding` is {padding!r}; it must be 'SAME', 'VALID' or a pair of amounts for each axis"
        )
    if padding == "VALID":
        return width - 1, max(width, stride) - 1
    total = width + stride - 2
    low = width - 1 if stride > width - 1 else -(-total // 2)
    return low, total - low


def _steps(given: Sequence[int] | None, spatial: int) -> Sizes:
    return (1,) * spatial if given is None or len(given) == 0 else tuple(map(int, given))


def _groups_to_features(x: jax.Array, groups: int) -> jax.Array:
    """Reshape ``(groups · batch, ..., in)`` to ``(batch, ..., groups · in)``: a block of the batch becomes a group."""
    if groups == 1:
        return x
    x = jnp.moveaxis(x.reshape(groups, x.shape[0] // groups, *x.shape[1:]), 0, -2)
    return x.reshape(*x.shape[:-2], groups * x.shape[-1])
