"""A batch norm of a whole batch, computed in parts that know each other by the name of an axis."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax.sharding import AxisType, PartitionSpec as P

PARTS = 2
KINDS = ("vmap", "shard_map", "shard_map, unchecked")


def spread(around: str, operation: Callable[..., Any]) -> Callable[..., Any]:
    """``operation`` of ``x`` and parameters, whose batch is split over `PARTS` members or devices."""

    def whole(x: jax.Array, *parameters: jax.Array | None, where: jax.Array | None = None, **options: Any) -> Any:
        def part(x: jax.Array, where: jax.Array | None, *parameters: jax.Array | None) -> Any:
            y, moments = operation(x, *parameters, where=where, axis_name="part", **options)
            return y, moments if around == "shard_map" else jax.tree.map(lambda each: each.reshape(1, -1), moments)

        if around == "vmap":
            split, join = (
                partial(jax.tree.map, lambda array: array.reshape(PARTS, -1, *array.shape[1:])),
                partial(jax.tree.map, lambda array: array.reshape(-1, *array.shape[2:])),
            )
            axes = (0, 0, *(None for _ in parameters))
            y, moments = join(jax.vmap(part, axes, axis_name="part")(split(x), split(where), *parameters))
        else:
            mesh = jax.make_mesh((PARTS,), ("part",), axis_types=(AxisType.Auto,), devices=jax.devices("cpu")[:PARTS])
            batch, one = P("part"), P()
            y, moments = jax.shard_map(
                part,
                mesh=mesh,
                in_specs=(batch, batch, *(one for _ in parameters)),
                out_specs=(batch, one if around == "shard_map" else batch),
                check_vma=around == "shard_map",
            )(x, where, *parameters)
        # Where JAX does not see that the moments are one value, each part has its own.
        return y, moments if around == "shard_map" else jax.tree.map(lambda each: each[0], moments)

    return whole
