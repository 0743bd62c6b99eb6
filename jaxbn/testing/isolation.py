"""Checks that a NaN spreads no further than in the reference.

The channels of a batch norm do not depend on each other, nor do the images of a convolution's batch. The check looks
for such independence in the reference: if each slice of one array affects exactly one slice of another, as each channel
of ``x`` affects one entry of ``dgamma``, the rule must not mix the slices. It requires nothing within a slice, because
algorithms differ there: at the zero padding of an image, one multiplies zero by NaN and another skips the product.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxbn.testing.collector import Collector
from jaxbn.testing.cotangents import gaussian
from jaxbn.testing.report import Failure
from jaxbn.testing.scoring import Scorer

Vectors = Sequence[jax.Array]

_CAUSE = "a sum or product over an axis whose entries should stay separate, or a mask that multiplies by zero"


def check_isolation(collector: Collector, scorer: Scorer, seed: int) -> None:
    """Sets slices of each input and cotangent to NaN, along each axis, and compares where the results are NaN."""
    problem, evaluator = collector.problem, scorer.evaluator
    dy = gaussian(problem.outputs, seed, 0).arrays
    for source, axis, arguments in _with_nan_slices(collector, dy):
        collector.progress(f"isolation, NaN in {source}")
        ours = [_nan_masks(evaluator.rule(*vectors)) for _, vectors in arguments]
        allowed = [
            [
                a | b
                for a, b in zip(
                    _nan_masks(evaluator.autodiff(*vectors)), _nan_masks(evaluator.exact(*vectors)), strict=True
                )
            ]
            for _, vectors in arguments
        ]
        for place, name in enumerate(problem.result_names):
            pairs = [(mine[place], theirs[place]) for mine, theirs in zip(ours, allowed, strict=True)]
            spread = _spread_beyond(pairs)
            if spread is not None:
                number, result_axis, indices = spread
                message = (
                    f"a NaN in {source}, at {arguments[number][0]} of axis {axis}, reaches {indices} of axis "
                    f"{result_axis} in {name}, which it does not reach in the reference"
                )
                collector.failures.append(Failure("isolation", message, cause=_CAUSE))
    collector.checked.append("a NaN stays in its slice")


def _with_nan_slices(collector: Collector, dy: Vectors) -> Iterator[tuple[str, int, list[tuple[int, Any]]]]:
    """Yields, for each axis of each array, the array's name, the axis, and the arguments with one slice set to NaN.

    The slices are the first, the middle and the last, which are given with their indices.
    """
    problem = collector.problem
    sources = [(f"`{leaf.name}`", problem.arrays, place, False) for place, leaf in enumerate(problem.inputs)]
    sources += [(f"the cotangent of {y.name}", list(dy), place, True) for place, y in enumerate(problem.outputs)]
    for name, arrays, place, is_cotangent in sources:
        shape = arrays[place].shape
        for axis, length in enumerate(shape):
            if length < 2 or 0 in shape:
                continue
            arguments = []
            for index in sorted({0, length // 2, length - 1}):
                changed = _set_to_nan(arrays, place, axis, index)
                arguments.append((index, (problem.arrays, changed) if is_cotangent else (changed, dy)))
            yield name, axis, arguments


def _set_to_nan(arrays: Vectors, place: int, axis: int, index: int) -> list[jax.Array]:
    changed = np.array(arrays[place])
    np.moveaxis(changed, axis, 0)[index] = np.nan
    return [jnp.asarray(changed) if other == place else array for other, array in enumerate(arrays)]


def _nan_masks(result: Any) -> list[np.ndarray]:
    return [np.isnan(np.asarray(array)) for array in jax.tree.leaves(result)]


def _spread_beyond(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[int, int, list[int]] | None:
    """Finds a pair, an axis and the indices along it at which only the rule has a NaN.

    A pair has the NaN masks of the rule and of the reference, for one slice. An axis counts only if in the reference
    every slice reaches one index of it, and different slices reach different ones.
    """
    for axis in range(pairs[0][0].ndim):
        other_axes = tuple(other for other in range(pairs[0][0].ndim) if other != axis)
        reached = [[set(np.flatnonzero(np.any(mask, other_axes)).tolist()) for mask in pair] for pair in pairs]
        single = all(len(theirs) == 1 for _, theirs in reached)
        if not single or len(set.union(*(theirs for _, theirs in reached))) < len(reached):
            continue
        for number, (mine, theirs) in enumerate(reached):
            if mine - theirs:
                return number, axis, sorted(mine - theirs)
    return None
