"""Checks the rule under JAX's transformations.

A transformation is run on several members, which are sets of arguments, and the gradients of each member are compared
with the truth for that member alone.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxbn.testing.collector import Collector
from jaxbn.testing.cotangents import gaussian
from jaxbn.testing.oracle import pullback
from jaxbn.testing.precision import Trial
from jaxbn.testing.problem import Function, Problem
from jaxbn.testing.scoring import Scorer

FACTORS = (1.0, 0.75, 0.5)
"""The members' arguments are multiples of the caller's, so that they stay, for example, positive or triangular."""

Vectors = list[jax.Array]


class Member(NamedTuple):
    arrays: Vectors
    dy: Vectors


Run = Callable[[Function, Sequence[Member]], list[Vectors]]
"""Computes the gradients of each member under a transformation."""


class TransformedRun(NamedTuple):
    detail: str  # added to the transformation's name in the report
    run: Run
    members: list[Member]


def check_transformation(
    collector: Collector, scorer: Scorer, name: str, pooled: Sequence[Trial], seed: int, *, jit: bool
) -> None:
    problem = collector.problem
    for detail, run, members in _runs(name, problem, seed, jit=jit):
        label = f"{name} {detail}".strip()
        collector.progress(label)
        try:
            gradients = run(problem.flattened(problem.fn), members)
        except Exception as error:
            collector.transformation_raised(name, error)
            return
        trials = [
            scorer.trial(f"member {number} of {label}", got, *member)
            for number, (got, member) in enumerate(zip(gradients, members, strict=True))
        ]
        collector.judge(trials, problem.inputs, pooled, size=problem.output_size, transformation=label)
    collector.checked.append(name)


def _runs(name: str, problem: Problem, seed: int, *, jit: bool) -> Iterator[TransformedRun]:
    """The runs that check a transformation; ``jit`` says whether the other checks compile the rule."""
    members = _members(problem, seed, ())
    if name == "jit":
        # The other checks have already compiled the rule, if that is possible.
        yield TransformedRun("(not compiled)" if jit else "", run_eager if jit else run_compiled, members[:1])
    elif name == "vmap":
        for position, places in problem.inputs_of_argument.items():
            label = problem.inputs[places[0]].name if len(places) == 1 else f"argument {position}"
            yield TransformedRun(f"over `{label}`", run_vmap_over(places), _members(problem, seed, places))
    elif name == "vmap of the pullback":
        yield TransformedRun("", run_vmap_of_pullback, members)
    elif name == "scan":
        yield TransformedRun("", run_scan, _members(problem, seed, range(len(problem.inputs))))
    elif name == "checkpoint":
        yield TransformedRun("", run_checkpoint, members[:1])
    elif name == "devices":
        yield TransformedRun("(two)", run_sharded, members[:1])


def _members(problem: Problem, seed: int, places: Sequence[int]) -> list[Member]:
    """Members with different cotangents, and with different multiples of the inputs in ``places``."""
    members = []
    for number, factor in enumerate(FACTORS):
        arrays = [
            array * jnp.asarray(factor, array.dtype) if place in places else array
            for place, array in enumerate(problem.arrays)
        ]
        members.append(Member(arrays, gaussian(problem.outputs, seed, 2000 + number).arrays))
    return members


def run_eager(function: Function, members: Sequence[Member]) -> list[Vectors]:
    return [pullback(function)(*member)[1] for member in members]


def run_compiled(function: Function, members: Sequence[Member]) -> list[Vectors]:
    compiled = jax.jit(pullback(function))
    return [compiled(*member)[1] for member in members]


def run_checkpoint(function: Function, members: Sequence[Member]) -> list[Vectors]:
    return run_compiled(jax.checkpoint(function), members)


def run_vmap_over(places: Sequence[int]) -> Run:
    """Maps over the inputs in ``places``, along their second axis if possible, and over the cotangents."""

    def run(function: Function, members: Sequence[Member]) -> list[Vectors]:
        first = members[0].arrays
        axes = [min(1, array.ndim) if place in places else None for place, array in enumerate(first)]
        arrays = [
            array if axis is None else np.stack([member.arrays[place] for member in members], axis)
            for place, (array, axis) in enumerate(zip(first, axes, strict=True))
        ]
        dy = _stacked([member.dy for member in members])
        _, gradients = jax.jit(jax.vmap(pullback(function), (axes, 0)))(arrays, dy)
        return _unstacked(gradients, len(members))

    return run


def run_vmap_of_pullback(function: Function, members: Sequence[Member]) -> list[Vectors]:
    _, vjp = jax.vjp(function, members[0].arrays)
    return _unstacked(jax.jit(jax.vmap(vjp))(_stacked([member.dy for member in members]))[0], len(members))


def run_scan(function: Function, members: Sequence[Member]) -> list[Vectors]:
    def step(carry: None, member: Any) -> tuple[None, Any]:
        return carry, pullback(function)(*member)[1]

    stacked = (_stacked([member.arrays for member in members]), _stacked([member.dy for member in members]))
    return _unstacked(jax.jit(lambda stacked: jax.lax.scan(step, None, stacked)[1])(stacked), len(members))


def run_sharded(function: Function, members: Sequence[Member]) -> list[Vectors]:
    """Shards each array over two devices, along its first axis of even length."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("devices",))

    def sharded(array: jax.Array) -> jax.Array:
        axes: list[str | None] = [None] * array.ndim
        for axis, length in enumerate(array.shape):
            if length and length % 2 == 0:
                axes[axis] = "devices"
                break
        sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))
        return jax.device_put(array, sharding)

    gradients = run_compiled(
        function, [Member(list(map(sharded, m.arrays)), list(map(sharded, m.dy))) for m in members]
    )
    return [[jnp.asarray(np.asarray(array)) for array in arrays] for arrays in gradients]


def _stacked(lists: Sequence[Vectors]) -> list[np.ndarray]:
    # `jnp.stack` would compile a program for each shape.
    return [np.stack(arrays) for arrays in zip(*lists, strict=True)]


def _unstacked(arrays: Vectors, count: int) -> list[Vectors]:
    stacked = list(map(np.asarray, arrays))
    return [[array[number] for array in stacked] for number in range(count)]
