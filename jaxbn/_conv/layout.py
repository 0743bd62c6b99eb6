"""Any layout of the operands, brought to the one that the maps work in: channels last.

``x`` and ``y`` are ``(batch, *spatial, channels)`` inside, ``kernel`` is ``(*window, in, out)``. A transposition is
linear and its own adjoint's inverse, so the gradients come back in the caller's layout by themselves.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

CHANNELS_LAST = {3: ("NWC", "WIO", "NWC"), 4: ("NHWC", "HWIO", "NHWC"), 5: ("NDHWC", "DHWIO", "NDHWC")}
"""The default dimension numbers by rank."""

CHANNELS_FIRST = {3: ("NCW", "OIW", "NCW"), 4: ("NCHW", "OIHW", "NCHW"), 5: ("NCDHW", "OIDHW", "NCDHW")}
"""PyTorch's."""


class Layout(NamedTuple):
    """The permutations from the caller's axes to channels last, for each operand and the result."""

    x: tuple[int, ...]
    kernel: tuple[int, ...]
    y: tuple[int, ...]

    @classmethod
    def of(cls, dimension_numbers: lax.ConvDimensionNumbers) -> "Layout":
        """Reads ``jax.lax``'s numbers, which list batch (or out), feature (or in), then the spatial axes."""
        batch_first = (dimension_numbers.lhs_spec, dimension_numbers.out_spec)
        x, y = ((batch, *spatial, feature) for batch, feature, *spatial in batch_first)
        out_axis, in_axis, *window = dimension_numbers.rhs_spec
        return cls(x, (*window, in_axis, out_axis), y)

    def canonical_x(self, x: jax.Array) -> jax.Array:
        return jnp.transpose(x, self.x)

    def canonical_kernel(self, kernel: jax.Array, *, flip: bool) -> jax.Array:
        """Channels last, and rotated by 180° if ``flip`` (D2): a correlation with it is then the deck's convolution."""
        kernel = jnp.transpose(kernel, self.kernel)
        return jnp.flip(kernel, axis=range(kernel.ndim - 2)) if flip else kernel

    def restore_x(self, x: jax.Array) -> jax.Array:
        return jnp.transpose(x, tuple(np.argsort(self.x)))

    def restore_kernel(self, kernel: jax.Array, *, flip: bool) -> jax.Array:
        kernel = jnp.flip(kernel, axis=range(kernel.ndim - 2)) if flip else kernel
        return jnp.transpose(kernel, tuple(np.argsort(self.kernel)))

    def canonical_y(self, y: jax.Array) -> jax.Array:
        return jnp.transpose(y, self.y)

    def restore_y(self, y: jax.Array) -> jax.Array:
        return jnp.transpose(y, tuple(np.argsort(self.y)))
