"""Recognises a gradient that lacks a term: its error is then parallel to a known array."""

from collections.abc import Iterator
from itertools import combinations

import numpy as np

from jaxbn.testing.evidence import CASES, Evidence, axes_in_words

ENTRIES_PER_FACTOR = 4
"""A factor is fitted to at least this many entries, because a few may be parallel to an array by chance."""


def missing_term(evidence: Evidence) -> str | None:
    """Finds an array such that ``got − want`` is a multiple of it.

    The factor is one number for each case, or one for each index of one or two axes.
    """
    residuals = [got - want for got, want in zip(evidence.got, evidence.want, strict=True)]
    for axes in _axes_of_factors(evidence.leaf.shape):
        for name, candidates in _candidates(evidence, axes):
            projections = [_projection(r, candidate, axes) for r, candidate in zip(residuals, candidates, strict=True)]
            if evidence.agree_in_all_cases(residuals, projections):
                factors = f", with a factor for each index of {axes_in_words(axes)}" if axes else ""
                return f"a term parallel to {name} is missing or has a wrong factor{factors}"
    return None


def _axes_of_factors(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    size = int(np.prod(shape))
    for count in range(3):
        for axes in combinations(range(len(shape)), count):
            if size >= ENTRIES_PER_FACTOR * int(np.prod([shape[axis] for axis in axes])):
                yield axes


def _candidates(evidence: Evidence, axes: tuple[int, ...]) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Yields known arrays of the input's shape: the name, and the value in every case."""
    shape = evidence.leaf.shape
    summed = tuple(axis for axis in range(len(shape)) if axis not in axes)
    yield "a constant, such as a mean,", [np.ones(shape)] * CASES
    known = [
        (leaf.name, array)
        for leaf, array in evidence.known_arrays()
        if array.shape == shape and np.all(np.isfinite(array))
    ]
    for name, array in known:
        centred = array - np.mean(array, summed, keepdims=True)
        yield f"x̂, which is `{name}` standardised over {axes_in_words(summed)},", [centred] * CASES
        yield f"`{name}`", [array] * CASES
    for place, leaf in enumerate(evidence.problem.outputs):
        if leaf.shape == shape:
            yield f"the cotangent of {leaf.name}", [dy[place] for dy in evidence.dy]
    for index, (name, array) in enumerate(known):
        for other_name, other_array in known[index:]:
            yield f"`{name}` · `{other_name}`", [array * other_array] * CASES


def _projection(residual: np.ndarray, candidate: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """The multiple of ``candidate`` nearest to ``residual``, with a factor for each index of ``axes``."""
    summed = tuple(axis for axis in range(residual.ndim) if axis not in axes)
    square = np.sum(candidate * candidate, summed, keepdims=True)
    factor = np.sum(residual * candidate, summed, keepdims=True) / np.where(square == 0, 1.0, square)
    return factor * candidate
