"""The rule under JAX's transformations, each member's gradients against the truth of that member alone."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxbn.testing.collector import Collector
from jaxbn.testing.cotangents import gaussian
from jaxbn.testing.gradients import Truth
from jaxbn.testing.oracle import pullback
from jaxbn.testing.precision import Trial
from jaxbn.testing.problem import Function

FACTORS = (1.0, 0.75, 0.5)  # of one argument: it stays positive, triangular, infinite as it was
Vectors = list[jax.Array]


class Member(NamedTuple):
    arrays: Vectors
    dy: Vectors


Run = Callable[[Function, Sequence[Member]], list[Vectors]]
"""The gradients of each member, computed under the transformation."""


def check_transformation(
    collector: Collector,
    truth: Truth,
    name: str,
    runs: Iterator[tuple[str, Run, list[Member]]],
    pooled: Sequence[Trial],
) -> None:
    """Each run of one transformation; one that raises is not supported, or not pure."""
    problem = collector.problem
    for detail, run, members in runs:
        label = f"{name} {detail}".strip()
        collector.progress(label)
        try:
            gradients = run(problem.view(problem.fn), members)
        except Exception as error:
            collector.raised(name, error)
            return
        trials = [
            truth.trial(f"member {number} of {label}", got, *member)
            for number, (got, member) in enumerate(zip(gradients, members, strict=True))
        ]
        size = sum(y.size for y in problem.outputs)
        collector.judge(trials, problem.inputs, pooled, size=size, transformation=label)
    collector.checked.append(name)


def scaled(collector: Collector, seed: int, places: Sequence[int]) -> list[Member]:
    """Members whose ``places`` and cotangents differ."""
    problem = collector.problem
    members = []
    for number, factor in enumerate(FACTORS):
        arrays = [
            array * jnp.asarray(factor, array.dtype) if place in places else array
            for place, array in enumerate(problem.arrays)
        ]
        members.append(Member(arrays, gaussian(problem.outputs, seed, 2000 + number).arrays))
    return members


def run_eager(view: Function, members: Sequence[Member]) -> list[Vectors]:
    return [pullback(view)(*member)[1] for member in members]


def run_compiled(view: Function, members: Sequence[Member]) -> list[Vectors]:
    compiled = jax.jit(pullback(view))
    return [compiled(*member)[1] for member in members]


def run_checkpoint(view: Function, members: Sequence[Member]) -> list[Vectors]:
    return run_compiled(jax.checkpoint(view), members)


def run_vmap_over(places: Sequence[int]) -> Run:
    """Over the arrays in ``places`` and the cotangents; arrays by their second axis where they have one."""

    def run(view: Function, members: Sequence[Member]) -> list[Vectors]:
        first = members[0].arrays
        axes = [min(1, array.ndim) if place in places else None for place, array in enumerate(first)]
        arrays = [
            array if axis is None else np.stack([member.arrays[place] for member in members], axis)
            for place, (array, axis) in enumerate(zip(first, axes, strict=True))
        ]
        dy = _stacked([member.dy for member in members])
        _, gradients = jax.jit(jax.vmap(pullback(view), (axes, 0)))(arrays, dy)
        return _apart(gradients, len(members))

    return run


def run_vmap_of_pullback(view: Function, members: Sequence[Member]) -> list[Vectors]:
    _, vjp = jax.vjp(view, members[0].arrays)
    return _apart(jax.jit(jax.vmap(vjp))(_stacked([member.dy for member in members]))[0], len(members))


def run_scan(view: Function, members: Sequence[Member]) -> list[Vectors]:
    def step(carry: None, member: Any) -> tuple[None, Any]:
        return carry, pullback(view)(*member)[1]

    stacked = (_stacked([member.arrays for member in members]), _stacked([member.dy for member in members]))
    return _apart(jax.jit(lambda stacked: jax.lax.scan(step, None, stacked)[1])(stacked), len(members))


def run_sharded(view: Function, members: Sequence[Member]) -> list[Vectors]:
    """Each array shared out along its first axis that two devices divide."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("devices",))

    def shared(array: jax.Array) -> jax.Array:
        axes: list[str | None] = [None] * array.ndim
        for axis, length in enumerate(array.shape):
            if length and length % 2 == 0:
                axes[axis] = "devices"
                break
        sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))
        return jax.device_put(array, sharding)

    gradients = run_compiled(view, [Member(list(map(shared, m.arrays)), list(map(shared, m.dy))) for m in members])
    return [[jnp.asarray(np.asarray(array)) for array in each] for each in gradients]


def _stacked(lists: Sequence[Vectors]) -> list[np.ndarray]:
    # By NumPy, which compiles nothing.
    return [np.stack(arrays) for arrays in zip(*lists, strict=True)]


def _apart(arrays: Vectors, count: int) -> list[Vectors]:
    whole = list(map(np.asarray, arrays))
    return [[array[number] for array in whole] for number in range(count)]
