"""Layouts: the transpositions between the caller's axes and the channels-last layout of the bilinear maps.

In channels-last layout ``x`` and ``y`` are ``(batch, *spatial, channels)`` and ``kernel`` is ``(*window, in, out)``.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

CHANNELS_LAST = {3: ("NWC", "WIO", "NWC"), 4: ("NHWC", "HWIO", "NHWC"), 5: ("NDHWC", "DHWIO", "NDHWC")}
"""The default dimension numbers, by rank."""

CHANNELS_FIRST = {3: ("NCW", "OIW", "NCW"), 4: ("NCHW", "OIHW", "NCHW"), 5: ("NCDHW", "OIDHW", "NCDHW")}
"""PyTorch's dimension numbers, by rank."""

Operand = jax.Array | jax.ShapeDtypeStruct
"""An array, or the shape and dtype of one that is still to be computed, such as a gradient."""


class Layout(NamedTuple):
    """For each operand and the result, the permutation that brings the caller's axes to channels last.

    With ``flip_kernel`` the kernel is rotated by 180° as well: correlation with it is then the deck's convolution (D2).
    """

    x: tuple[int, ...]
    kernel: tuple[int, ...]
    y: tuple[int, ...]
    flip_kernel: bool = False

    @classmethod
    def of(cls, dimension_numbers: lax.ConvDimensionNumbers, *, flip_kernel: bool = False) -> "Layout":
        """Read ``jax.lax``'s numbers, which list batch (or out), feature (or in), then the spatial axes."""
        batch_first = (dimension_numbers.lhs_spec, dimension_numbers.out_spec)
        x, y = ((batch, *spatial, feature) for batch, feature, *spatial in batch_first)
        out_axis, in_axis, *window = dimension_numbers.rhs_spec
        return cls(x, (*window, in_axis, out_axis), y, flip_kernel)

    def canonical_x(self, x: jax.Array) -> jax.Array:
        return jnp.transpose(x, self.x)

    def canonical_kernel(self, kernel: jax.Array) -> jax.Array:
        return self._flip(jnp.transpose(kernel, self.kernel))

    def canonical_y(self, y: jax.Array) -> jax.Array:
        return jnp.transpose(y, self.y)

    def restore_x(self, x: jax.Array) -> jax.Array:
        return jnp.transpose(x, tuple(np.argsort(self.x)))

    def restore_kernel(self, kernel: jax.Array) -> jax.Array:
        return jnp.transpose(self._flip(kernel), tuple(np.argsort(self.kernel)))

    def restore_y(self, y: jax.Array) -> jax.Array:
        return jnp.transpose(y, tuple(np.argsort(self.y)))

    def _flip(self, kernel: jax.Array) -> jax.Array:
        return jnp.flip(kernel, axis=range(kernel.ndim - 2)) if self.flip_kernel else kernel


def read_layout(function: str, x: Operand, kernel: Operand, dimension_numbers: Any, *, flip_kernel: bool) -> Layout:
    """The layout of the operands; raises ``ValueError`` if their ranks or the dimension numbers do not fit."""
    if x.ndim == kernel.ndim - 1 and kernel.ndim in CHANNELS_LAST:
        raise ValueError(_missing_axis(function, x, kernel, dimension_numbers))
    if x.ndim not in CHANNELS_LAST:
        raise ValueError(f"{function}: `x` has rank {x.ndim}; it must be 3, 4 or 5: batch, 1 to 3 of space, channels")
    if kernel.ndim != x.ndim:
        raise ValueError(f"{function}: `kernel` has rank {kernel.ndim}, `x` has rank {x.ndim}; they must be the same")
    numbers = CHANNELS_LAST[x.ndim] if dimension_numbers is None else dimension_numbers
    try:
        return Layout.of(lax.conv_dimension_numbers(x.shape, kernel.shape, numbers), flip_kernel=flip_kernel)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{function}: `dimension_numbers` is {numbers!r}; it must be as jax.lax.conv_dimension_numbers "
            f"reads it, which says: {error}"
        ) from None


def _missing_axis(function: str, x: Operand, kernel: Operand, dimension_numbers: Any) -> str:
    """The error message if ``x`` has one axis fewer than ``kernel``, with the expressions that add one."""
    with_axis = jax.ShapeDtypeStruct((1,) * kernel.ndim, x.dtype)
    layout = read_layout(function, with_axis, kernel, dimension_numbers, flip_kernel=False)
    batch, *_, channels = (
        {0: "x[None]", x.ndim: "x[..., None]"}.get(axis, f"jnp.expand_dims(x, {axis})") for axis in layout.x
    )
    one_channel = kernel.shape[layout.kernel[-2]] == 1
    return (
        f"{function}: `x` has rank {x.ndim}, `kernel` has rank {kernel.ndim}; they must be the same. "
        f"x.shape is {x.shape}: a single image needs a batch axis, {batch}"
        + (f"; images without channels need an axis for the one, {channels}" if one_channel else "")
    )


def as_read(x: Operand, kernel: Operand, dimension_numbers: Any) -> str:
    """The end of an error message about channels: the shapes, and the layout in which they were read."""
    shapes = f". x.shape is {x.shape} and kernel.shape is {kernel.shape}, read as"
    if dimension_numbers is not None:
        return f"{shapes} dimension_numbers={dimension_numbers!r}"
    of_x, of_kernel, _ = CHANNELS_LAST[x.ndim]
    return f"{shapes} {of_x} and {of_kernel}; PyTorch's layout is dimension_numbers={CHANNELS_FIRST[x.ndim]}"
