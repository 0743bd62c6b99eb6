"""What the devices along a named axis, or a group of them, tell each other: one gathering forward, one sum backward."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxbn._sharding import vary_alike, varying
from jaxbn._validation import as_integer


class Devices(NamedTuple):
    """The axes that the batch is spread over, by name, and the groups that share statistics; ``None`` is all.

    What all know together has one cotangent where JAX sees that it is one value: under `jax.vmap`, and under
    `jax.shard_map` by its type. Where it does not, each device has a cotangent of its own, and they are to be summed.
    """

    names: tuple[Any, ...]
    groups: tuple[tuple[int, ...], ...] | None
    one_cotangent: bool
    in_mesh: bool

    def gather(self, x: jax.Array) -> jax.Array:
        """``x`` of every device, along a new first axis."""
        if not self.in_mesh:  # `jax.vmap` gathers along one name at a time.
            for name in reversed(self.names):
                x = lax.all_gather(x, name)
            return x.reshape(-1, *x.shape[len(self.names) :])
        groups = None if self.groups is None else [list(group) for group in self.groups]
        is_one = groups is None and frozenset(self.names) <= varying(x)
        return lax.all_gather(x, self.names, axis_index_groups=groups, to="invarying" if is_one else "varying")

    def own(self, *parameters: jax.Array | None) -> tuple[Any, ...]:
        """The parameters, under `jax.vmap` a copy for each member.

        What members share JAX gives one cotangent, and from 0.12 on refuses a rule that makes one of each member while
        another output, the moments, is shared. Of copies there is one each, and the copying's transpose is their sum.
        """
        if self.in_mesh:
            return parameters
        zero = 0 * sum((lax.axis_index(name) for name in self.names), start=jnp.int32(0))
        return tuple(None if each is None else each + zero.astype(each.dtype) for each in parameters)

    def sums(self, each: jax.Array, known: jax.Array) -> jax.Array:
        """The sums over the devices of what each has, and of the cotangents of what all know; from one exchange."""
        if self.one_cotangent:
            return jnp.concatenate([self._total(each), known])
        return self._total(jnp.concatenate([each, known]))

    def _total(self, x: jax.Array) -> jax.Array:
        """The sum over the devices. Under its check `jax.shard_map` has none over groups."""
        return lax.psum(x, self.names) if self.groups is None else self.gather(x).sum(0)


def as_devices(function: str, x: jax.Array, axis_name: Any, axis_index_groups: Any) -> Devices | None:
    """Raises ``ValueError`` unless the axes are bound where the function is called and the groups partition them."""
    if axis_name is None:
        if axis_index_groups is not None:
            raise ValueError(f"{function}: `axis_index_groups` is given without `axis_name`; it must be the axis's")
        return None
    names = tuple(axis_name) if isinstance(axis_name, (tuple, list)) else (axis_name,)
    try:
        size = lax.axis_size(names)
    except (NameError, TypeError, ValueError):  # NameError for a name, the others for what is none
        raise ValueError(
            f"{function}: `axis_name` is {axis_name!r}, which is not bound; it must name an axis of a jax.shard_map or "
            "jax.vmap(..., axis_name=...) around the call"
        ) from None
    in_mesh = {name in jax.sharding.get_abstract_mesh().manual_axes for name in names}
    if not names:
        raise ValueError(f"{function}: `axis_name` is {axis_name!r}; it must name an axis, or be None")
    if len(in_mesh) != 1:
        raise ValueError(
            f"{function}: `axis_name` is {axis_name!r}; it must name axes of a jax.shard_map or of jax.vmap, not both"
        )
    if axis_index_groups is None:
        typed = frozenset(names) <= varying(vary_alike(x, over=names)[0])
        return Devices(names, None, typed or in_mesh == {False}, in_mesh == {True})
    lists = (list, tuple)
    if not (isinstance(axis_index_groups, lists) and all(isinstance(group, lists) for group in axis_index_groups)):
        raise TypeError(f"{function}: `axis_index_groups` is {axis_index_groups!r}; it must be a list of lists of ints")
    groups = tuple(
        tuple(as_integer(function, "axis_index_groups", index) for index in group) for group in axis_index_groups
    )
    if sorted(sum(groups, ())) != list(range(size)) or len({len(group) for group in groups}) != 1:
        raise ValueError(
            f"{function}: `axis_index_groups` is {axis_index_groups!r}; it must have every index from 0 to {size - 1} "
            "once, in groups of one size"
        )
    return Devices(names, groups, one_cotangent=False, in_mesh=True)
