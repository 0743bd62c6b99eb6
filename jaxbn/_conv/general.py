"""``jax.lax``'s convolution over the three maps: a stand-in wherever `jax.lax.conv_general_dilated` is called."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from jaxbn._conv.arithmetic import Arithmetic, in_context
from jaxbn._conv.geometry import ConvGeometry
from jaxbn._conv.layout import CHANNELS_LAST, Layout
from jaxbn._conv.maps import convolve
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
    """Convolves exactly as `jax.lax.conv_general_dilated` does, with this library's gradients.

        y(b, p, k) = Σ_c Σ_n lhs(b, i, c) · rhs(n, c, k)    with i · lhs_dilation = p · stride + n · rhs_dilation − low

    It is linear in each operand, and forward mode, reverse mode and any mixture of them go through it: its derivatives
    are the input gradient and the kernel gradient (D5, D7), and theirs are again the three. Saved for the backward
    pass: ``lhs`` and ``rhs``. The policies of `jax.checkpoint` that save products know ``lax``'s convolution by its
    name and not this one, which they compute again. `jax.experimental.jet` goes through it, but through no function
    with a `jax.custom_vjp`, such as `conv`, unless its gradient is taken inside.

    Args:
        lhs: As in `jax.lax.conv_general_dilated`, and so are all others: names, order, defaults and meaning.
        rhs: As in ``lax``.
        window_strides: As in ``lax``.
        padding: As in ``lax``.
        lhs_dilation: As in ``lax``.
        rhs_dilation: As in ``lax``.
        dimension_numbers: As in ``lax``; ``None`` is channels *first*, unlike in `conv`.
        feature_group_count: As in ``lax``.
        batch_group_count: As in ``lax``.
        precision: As in ``lax``.
        preferred_element_type: As in ``lax``, but that the derivatives take their operands in the operands' own dtype,
            unless that is float16, which is widened.
        out_sharding: As in ``lax``, which then does the work.

    Returns:
        What ``lax`` returns.

    Raises:
        TypeError: What ``lax`` raises.
        ValueError: What ``lax`` raises.

    Example:
        >>> import jax.numpy as jnp, jaxbn
        >>> x, kernel = jnp.ones((1, 3, 8, 8)), jnp.ones((4, 3, 3, 3))
        >>> jaxbn.conv_general_dilated(x, kernel, (1, 1), "SAME").shape
        (1, 4, 8, 8)

    References:
        Deck, D1 to D9.
    """
    options = {
        "window_strides": window_strides,
        "padding": padding,
        "lhs_dilation": lhs_dilation,
        "rhs_dilation": rhs_dilation,
        "dimension_numbers": dimension_numbers,
        "feature_group_count": feature_group_count,
        "batch_group_count": batch_group_count,
        "precision": precision,
        "preferred_element_type": preferred_element_type,
        "out_sharding": out_sharding,
    }
    theirs = partial(lax.conv_general_dilated, **options)
    expected = jax.eval_shape(theirs, lhs, rhs)  # What lax refuses is refused, in its words.
    exact = not jnp.issubdtype(expected.dtype, jnp.inexact)
    if lhs.ndim not in CHANNELS_LAST or out_sharding is not None or 0 in rhs.shape or exact:
        return theirs(lhs, rhs)
    ones = (1,) * (lhs.ndim - 2)
    dilations = _sizes(lhs_dilation, ones), _sizes(rhs_dilation, ones)
    layout = Layout.of(lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers))
    x = _groups_to_features(layout.canonical_x(jnp.asarray(lhs)), batch_group_count)
    kernel = layout.canonical_kernel(jnp.asarray(rhs), flip=False)
    groups = feature_group_count * batch_group_count  # One of them is 1.
    geometry = _geometry(x, kernel, _sizes(window_strides, ones), padding, dilations, groups)
    summed = None if preferred_element_type is None else expected.dtype
    return layout.restore_y(convolve(geometry, Arithmetic(in_context(precision), summed), x, kernel))


def _sizes(given: Any, ones: tuple[int, ...]) -> tuple[int, ...]:
    return ones if given is None or len(given) == 0 else tuple(map(int, given))


def _groups_to_features(x: jax.Array, groups: int) -> jax.Array:
    """``(groups · batch, ..., in)`` as ``(batch, ..., groups · in)``: each block of the batch a group of channels."""
    if groups == 1:
        return x
    x = jnp.moveaxis(x.reshape(groups, x.shape[0] // groups, *x.shape[1:]), 0, -2)
    return x.reshape(*x.shape[:-2], groups * x.shape[-1])


def _geometry(
    x: jax.Array,
    kernel: jax.Array,
    stride: tuple[int, ...],
    padding: str | Sequence[tuple[int, int]],
    dilations: tuple[tuple[int, ...], tuple[int, ...]],
    groups: int,
) -> ConvGeometry:
    _, *input_, in_features = x.shape
    *window, _, out_features = kernel.shape
    input_dilation, dilation = dilations
    if isinstance(padding, str):
        extent = [step * (taps - 1) + 1 for taps, step in zip(window, dilation, strict=True)]
        padding = lax.padtype_to_pads(input_, extent, stride, padding)
    pairs = tuple((low, high) for low, high in padding)
    return ConvGeometry(
        tuple(input_), tuple(window), in_features, out_features, stride, pairs, dilation, groups, input_dilation
    )
