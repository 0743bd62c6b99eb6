"""Recognises a gradient that is right up to a factor, and guesses what the factor is."""

from collections.abc import Callable, Iterator
from itertools import combinations
from math import prod, sqrt

import numpy as np

from jaxbn.testing.evidence import Evidence

MOST_NAMES = 3
"""At most this many names of a factor are given."""


def constant_factor(evidence: Evidence) -> str | None:
    factor = _fitted_factor(evidence, ())
    if not np.isfinite(factor) or not evidence.explained_by(lambda case: factor * evidence.want[case]):
        return None
    factor = float(factor)
    if abs(factor + 1) < 1e-2:
        return "the sign: got is −1 times what is wanted"
    name = _name_of_factor(factor, evidence)
    kind = "the sign and a constant factor" if factor < 0 else "a constant factor"
    return f"{kind}: got is {factor:.6g}{f' ({name})' if name else ''} times what is wanted"


def factor_along_an_axis(evidence: Evidence) -> str | None:
    """Recognises a factor with one entry for each index of an axis, such as γ with one entry for each channel."""
    for axis, length in enumerate(evidence.leaf.shape):
        if length < 2:
            continue
        factors = _fitted_factor(evidence, (axis,))
        if not np.all(np.isfinite(factors)) or not evidence.explained_by(
            lambda case, factors=factors: factors * evidence.want[case]
        ):
            continue
        if np.all(np.minimum(np.abs(factors), np.abs(factors - 1)) < 1e-2):
            continue  # some entries are zero and the others right, which `causes` recognises
        name = _name_of_vector(factors.ravel(), evidence, axis)
        if name is None and np.allclose(np.abs(factors), 1, atol=1e-2):
            name = "signs"
        return f"a factor that differs along axis {axis}: " + (
            name or f"{np.array2string(factors.ravel(), precision=4)}"
        )
    return None


def _fitted_factor(evidence: Evidence, axes: tuple[int, ...]) -> np.ndarray:
    """For each index along ``axes``, the factor that fits the right gradient to the rule's by least squares."""
    got, want = np.stack(evidence.got), np.stack(evidence.want)
    other_axes = tuple(axis for axis in range(got.ndim) if axis - 1 not in axes)
    with np.errstate(all="ignore"):
        factors = np.sum(got * want, other_axes, keepdims=True) / np.sum(want * want, other_axes, keepdims=True)
    return factors[0] if axes else factors.reshape(())


def _name_of_factor(factor: float, evidence: Evidence) -> str | None:
    """Expresses the factor by the number m of entries along some axes, such as ``1/m``."""
    close = 1e-4 if evidence.leaf.eps < 1e-4 else 4 * evidence.leaf.eps
    fitting = [name for name, value in _known_factors(evidence) if abs(abs(factor) / value - 1) < close]
    return " or ".join(fitting[:MOST_NAMES]) or None


def _known_factors(evidence: Evidence) -> Iterator[tuple[str, float]]:
    yield from (("2", 2.0), ("1/2", 0.5))
    counts: dict[int, str] = {}
    # The input itself comes first, so that a count that several arrays have is named after it.
    for leaf in (evidence.leaf, *evidence.problem.outputs, *evidence.problem.inputs):
        for count in range(1, len(leaf.shape) + 1):
            for axes in combinations(range(len(leaf.shape)), count):
                m = prod(leaf.shape[axis] for axis in axes)
                counts.setdefault(m, f"{leaf.name}.shape[{', '.join(map(str, axes))}]")
    for form, value in _FORMS_OF_COUNT:
        for m, source in counts.items():
            if m > 2:
                yield f"{form} with m = {m}, of {source}", value(m)


_FORMS_OF_COUNT: tuple[tuple[str, Callable[[int], float]], ...] = (
    ("m", lambda m: m),
    ("1/m", lambda m: 1 / m),
    ("m/(m−1)", lambda m: m / (m - 1)),
    ("(m−1)/m", lambda m: (m - 1) / m),
    ("m−1", lambda m: m - 1),
    ("1/(m−1)", lambda m: 1 / (m - 1)),
    ("√m", sqrt),
    ("1/√m", lambda m: 1 / sqrt(m)),
)

_FORMS_OF_VECTOR: tuple[tuple[str, Callable[[np.ndarray], np.ndarray]], ...] = (
    ("{}", lambda v: v),
    ("1/{}", lambda v: 1 / v),
    ("{}²", np.square),
    ("1/{}²", lambda v: v**-2.0),
)


def _name_of_vector(factors: np.ndarray, evidence: Evidence, axis: int) -> str | None:
    """Expresses the factors by an argument or output with as many entries, or by a standard deviation."""
    close = 1e-3 if evidence.leaf.eps < 1e-4 else 8 * evidence.leaf.eps
    for name, vector in _known_vectors(evidence, axis, len(factors)):
        for form, value in _FORMS_OF_VECTOR:
            with np.errstate(all="ignore"):
                ratios = factors / value(vector)
            if np.all(np.isfinite(ratios)) and np.allclose(ratios, np.mean(ratios), rtol=close, atol=0):
                constant = float(np.mean(ratios))
                scale = "" if abs(constant - 1) < close else f"{constant:.4g} · "
                question = " (is it left out?)" if form.startswith("1/") else " (is it applied once too often?)"
                return scale + form.format(name) + question
    return None


def _known_vectors(evidence: Evidence, axis: int, length: int) -> Iterator[tuple[str, np.ndarray]]:
    for leaf, array in evidence.known_arrays():
        if array.shape == (length,):
            yield f"`{leaf.name}`", array
            if np.all(array > 0):
                yield f"√`{leaf.name}`", np.sqrt(array)
    for leaf, array in evidence.known_arrays():
        for kept in [axis] if leaf is evidence.leaf else range(array.ndim):
            other_axes = tuple(other for other in range(array.ndim) if other != kept)
            if other_axes and array.shape[kept] == length and np.all(np.isfinite(array)):
                yield f"the standard deviation of `{leaf.name}`", np.std(array, other_axes)
