"""A cotangent that lacks a term: what is missing is parallel to something that one knows."""

from collections.abc import Iterator
from itertools import combinations

import numpy as np

from jaxbn.testing.evidence import CASES, Evidence

LEAST = 4  # entries for each coefficient, below which anything is parallel to anything


def missing_term(evidence: Evidence) -> str | None:
    """``got − want`` is a candidate times one number in each case, or one for each index of one or two axes."""
    residuals = [got - want for got, want in zip(evidence.got, evidence.wanted, strict=True)]
    for axes in _groupings(evidence.leaf.shape):
        for name, candidates in _candidates(evidence, axes):
            parts = [_parallel(r, candidate, axes) for r, candidate in zip(residuals, candidates, strict=True)]
            if evidence.same(residuals, parts):
                each = f", with a factor for each index of {_words(axes)}" if axes else ""
                return f"a term parallel to {name} is missing or has a wrong factor{each}"
    return None


def _groupings(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    size = int(np.prod(shape))
    for count in range(3):
        for axes in combinations(range(len(shape)), count):
            if size >= LEAST * int(np.prod([shape[axis] for axis in axes])):
                yield axes


def _candidates(evidence: Evidence, axes: tuple[int, ...]) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Things of the input's shape, by name; one for each case."""
    shape, problem = evidence.leaf.shape, evidence.problem
    summed = tuple(axis for axis in range(len(shape)) if axis not in axes)
    yield "a constant, such as a mean,", [np.ones(shape)] * CASES
    pairs = [*zip(problem.inputs, evidence.arrays, strict=True), *zip(problem.outputs, evidence.outputs, strict=True)]
    known = [(leaf.name, array) for leaf, array in pairs if array.shape == shape and np.all(np.isfinite(array))]
    for name, array in known:
        centred = array - np.mean(array, summed, keepdims=True)
        yield f"x̂, which is `{name}` standardised over {_words(summed)},", [centred] * CASES
        yield f"`{name}`", [array] * CASES
    for place, leaf in enumerate(problem.outputs):
        if leaf.shape == shape:
            yield f"the cotangent of {leaf.name}", [dy[place] for dy in evidence.dy]
    for index, (name, array) in enumerate(known):
        for other, factor in known[index:]:
            yield f"`{name}` · `{other}`", [array * factor] * CASES


def _parallel(residual: np.ndarray, candidate: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    summed = tuple(axis for axis in range(residual.ndim) if axis not in axes)
    square = np.sum(candidate * candidate, summed, keepdims=True)
    factor = np.sum(residual * candidate, summed, keepdims=True) / np.where(square == 0, 1.0, square)
    return factor * candidate


def _words(axes: tuple[int, ...]) -> str:
    return f"axis {axes[0]}" if len(axes) == 1 else f"axes {' and '.join(map(str, axes))}"
