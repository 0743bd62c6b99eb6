"""A NaN in one place reaches only what it reaches in the reference.

A batch norm's channels do not see each other, nor do the images of a convolution. Where a slice of one array reaches a
slice of another and no more, as each channel of ``x`` reaches one entry of ``dgamma``, a rule must not reach further.
Within windows no such thing can be asked: what a NaN becomes beside a padded image is zero times NaN in one algorithm
and nothing in another.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxbn.testing.collector import Collector
from jaxbn.testing.cotangents import gaussian
from jaxbn.testing.gradients import Truth
from jaxbn.testing.report import Failure

Vectors = Sequence[jax.Array]


def check_isolation(collector: Collector, truth: Truth, seed: int) -> None:
    """Along each axis of each input and of each output's cotangent."""
    problem, sides = collector.problem, truth.sides
    dy = gaussian(problem.outputs, seed, 0).arrays
    names = [*(y.name for y in problem.outputs), *(f"the cotangent of `{leaf.name}`" for leaf in problem.inputs)]
    for planted, axis, poisoned in _poisoned(collector, dy):
        collector.progress(f"isolation, NaN in {planted}")
        ours = [_nan(sides.rule(*vectors)) for _, vectors in poisoned]
        allowed = [
            [a | b for a, b in zip(_nan(sides.plain(*vectors)), _nan(sides.exact(*vectors)), strict=True)]
            for _, vectors in poisoned
        ]
        for place, name in enumerate(names):
            pairs = [(mine[place], theirs[place]) for mine, theirs in zip(ours, allowed, strict=True)]
            escape = _escape(pairs)
            if escape is not None:
                number, along, reached = escape
                message = (
                    f"a NaN in {planted}, at {poisoned[number][0]} of axis {axis}, reaches {reached} of axis {along} "
                    f"in {name}, which it does not reach in the reference"
                )
                collector.failures.append(Failure("isolation", message, cause=_CAUSE))
    collector.checked.append("a NaN stays in its slice")


_CAUSE = "what is summed or multiplied across an axis that should not be mixed, or a mask that multiplies by zero"


def _poisoned(collector: Collector, dy: Vectors) -> Iterator[tuple[str, int, list[tuple[int, Any]]]]:
    """For each axis, slices full of NaN: the first, the middle and the last."""
    problem = collector.problem
    groups = [(f"`{leaf.name}`", problem.arrays, place, False) for place, leaf in enumerate(problem.inputs)]
    groups += [(f"the cotangent of {y.name}", list(dy), place, True) for place, y in enumerate(problem.outputs)]
    for name, arrays, place, cotangent in groups:
        shape = arrays[place].shape
        for axis, length in enumerate(shape):
            if length < 2 or 0 in shape:
                continue
            poisoned = []
            for index in sorted({0, length // 2, length - 1}):
                changed = _with_nan(arrays, place, axis, index)
                poisoned.append((index, (problem.arrays, changed) if cotangent else (changed, dy)))
            yield name, axis, poisoned


def _with_nan(arrays: Vectors, place: int, axis: int, index: int) -> list[jax.Array]:
    poisoned = np.array(arrays[place])
    np.moveaxis(poisoned, axis, 0)[index] = np.nan
    return [jnp.asarray(poisoned) if other == place else array for other, array in enumerate(arrays)]


def _nan(result: Any) -> list[np.ndarray]:
    return [np.isnan(np.asarray(array)) for array in jax.tree.leaves(result)]


def _escape(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[int, int, list[int]] | None:
    """Where ours has a NaN at other indices of an axis, if each slice reaches one index of it in the reference."""
    for axis in range(pairs[0][0].ndim):
        others = tuple(other for other in range(pairs[0][0].ndim) if other != axis)
        reached = [[set(np.flatnonzero(np.any(each, others)).tolist()) for each in pair] for pair in pairs]
        single = all(len(theirs) == 1 for _, theirs in reached)
        if not single or len(set.union(*(theirs for _, theirs in reached))) < len(reached):
            continue
        for number, (mine, theirs) in enumerate(reached):
            if mine - theirs:
                return number, axis, sorted(mine - theirs)
    return None
