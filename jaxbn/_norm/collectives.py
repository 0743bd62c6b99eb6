"""Cross-device statistics: one all-gather in the forward pass, one psum in the backward pass."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxbn._sharding import varying


class Collectives(NamedTuple):
    """The collectives over the named axes of `jax.shard_map` or `jax.vmap` that the batch is split over.

    Under `jax.vmap`, read "member" for "device".
    """

    axis_names: tuple[Any, ...]
    axis_index_groups: tuple[tuple[int, ...], ...] | None  # lists of devices that share statistics; None: all devices
    under_vmap: bool  # otherwise under `jax.shard_map`
    # True: JAX knows that the moments are the same on all devices, under `jax.vmap` and under a `jax.shard_map` that
    # checks varying axes, and gives every device the whole cotangent of the moments. False: every device gets the
    # cotangent of its copy alone, and these must be summed.
    moments_have_one_cotangent: bool

    def all_gather(self, x: jax.Array) -> jax.Array:
        """Stack the values of ``x`` on all devices along a new first axis."""
        if self.under_vmap:  # `jax.vmap` gathers over one axis name at a time.
            for name in reversed(self.axis_names):
                x = lax.all_gather(x, name, axis_index_groups=self._groups)  # JAX refuses groups under `jax.vmap`.
            return x.reshape(-1, *x.shape[len(self.axis_names) :])
        # Without groups the result is the same on all devices. Where varying axes are checked, its type must say so.
        varying_is_checked = frozenset(self.axis_names) <= varying(x)
        to = "invarying" if varying_is_checked and self._groups is None else "varying"
        return lax.all_gather(x, self.axis_names, axis_index_groups=self._groups, to=to)

    def sum_cotangents(self, sums: jax.Array, dmoments: jax.Array) -> jax.Array:
        """Sum the backward pass's sums and the cotangents of the moments over all devices, in one psum.

        Args:
            sums: The sums over this device's part of the batch.
            dmoments: The cotangents of the moments that this device receives.

        Returns:
            The totals of both, concatenated along the first axis.
        """
        if self.moments_have_one_cotangent:
            return jnp.concatenate([self.psum(sums), dmoments])
        return self.psum(jnp.concatenate([sums, dmoments]))

    def copy_for_each_member(self, *parameters: jax.Array | None) -> tuple[Any, ...]:
        """Under `jax.vmap`, give each member its own copy of the parameters.

        Without the copies, `jax.vmap` expects one cotangent for a parameter that the members share. The rule returns
        one for each member, while the moments are shared, and JAX 0.12 refuses this mixture. In the backward pass, the
        copying becomes a sum of the members' cotangents.
        """
        if not self.under_vmap:
            return parameters
        # `jax.vmap` treats this zero as a value that differs between members.
        zero = 0 * sum((lax.axis_index(name) for name in self.axis_names), start=jnp.int32(0))
        return tuple(
            parameter
            if parameter is None or not jnp.issubdtype(parameter.dtype, jnp.floating)
            else parameter + zero.astype(parameter.dtype)
            for parameter in parameters
        )

    def psum(self, x: jax.Array) -> jax.Array:
        """The sum of ``x`` over all devices."""
        # `jax.shard_map` has no psum over groups of devices if it checks varying axes.
        return lax.psum(x, self.axis_names) if self.axis_index_groups is None else self.all_gather(x).sum(0)

    @property
    def _groups(self) -> list[list[int]] | None:
        return None if self.axis_index_groups is None else [list(group) for group in self.axis_index_groups]
