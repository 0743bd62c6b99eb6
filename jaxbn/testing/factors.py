"""A cotangent that is right but for a factor, and what the factor may be."""

from collections.abc import Iterator
from itertools import combinations
from math import prod, sqrt

import numpy as np

from jaxbn.testing.evidence import Evidence

NAMES = 3  # that are told, when more fit


def constant_factor(evidence: Evidence) -> str | None:
    factor = _projection(evidence, ())
    if not np.isfinite(factor) or not evidence.explained_by(lambda case: factor * evidence.wanted[case]):
        return None
    factor = float(factor)
    if abs(factor + 1) < 1e-2:
        return "the sign: got is what is wanted with a minus"
    name = _named(factor, evidence)
    kind = "the sign and a constant factor" if factor < 0 else "a constant factor"
    return f"{kind}: got is {factor:.6g}{f' ({name})' if name else ''} times what is wanted"


def factor_along_an_axis(evidence: Evidence) -> str | None:
    """Such as γ left out, which each channel has one of."""
    for axis, length in enumerate(evidence.leaf.shape):
        if length < 2:
            continue
        factors = _projection(evidence, (axis,))
        if not np.all(np.isfinite(factors)) or not evidence.explained_by(
            lambda case, factors=factors: factors * evidence.wanted[case]
        ):
            continue
        if np.all(np.minimum(np.abs(factors), np.abs(factors - 1)) < 1e-2):
            continue  # some are left out, the rest is right
        name = _named_vector(factors.ravel(), evidence, axis)
        if name is None and np.allclose(np.abs(factors), 1, atol=1e-2):
            name = "signs"
        return f"a factor that differs along axis {axis}: " + (
            name or f"{np.array2string(factors.ravel(), precision=4)}"
        )
    return None


def _projection(evidence: Evidence, axes: tuple[int, ...]) -> np.ndarray:
    """The factor, for each index along ``axes``, that brings what is wanted nearest to what came."""
    got, want = np.stack(evidence.got), np.stack(evidence.wanted)
    others = tuple(axis for axis in range(got.ndim) if axis - 1 not in axes)
    with np.errstate(all="ignore"):
        factors = np.sum(got * want, others, keepdims=True) / np.sum(want * want, others, keepdims=True)
    return factors[0] if axes else factors.reshape(())


def _named(factor: float, evidence: Evidence) -> str | None:
    """In terms of the number of entries along some axes."""
    close = 1e-4 if evidence.leaf.eps < 1e-4 else 4 * evidence.leaf.eps
    fitting = [name for name, value in _names(evidence) if abs(abs(factor) / value - 1) < close]
    return " or ".join(fitting[:NAMES]) or None


def _names(evidence: Evidence) -> Iterator[tuple[str, float]]:
    yield from (("2", 2.0), ("1/2", 0.5))
    counts: dict[int, str] = {}
    # First the whole of what is summed over, then single axes.
    for leaf in (evidence.leaf, *evidence.problem.outputs, *evidence.problem.inputs):
        for count in range(1, len(leaf.shape) + 1):
            for axes in combinations(range(len(leaf.shape)), count):
                m = prod(leaf.shape[axis] for axis in axes)
                counts.setdefault(m, f"{leaf.name}.shape[{', '.join(map(str, axes))}]")
    for form, of in _FORMS:
        for m, where in counts.items():
            if m > 2:
                yield f"{form} with m = {m}, of {where}", of(m)


_FORMS = (
    ("m", lambda m: m),
    ("1/m", lambda m: 1 / m),
    ("m/(m−1)", lambda m: m / (m - 1)),
    ("(m−1)/m", lambda m: (m - 1) / m),
    ("m−1", lambda m: m - 1),
    ("1/(m−1)", lambda m: 1 / (m - 1)),
    ("√m", sqrt),
    ("1/√m", lambda m: 1 / sqrt(m)),
)


def _named_vector(factors: np.ndarray, evidence: Evidence, axis: int) -> str | None:
    """In terms of an argument, an output, or their spread, with one entry for each index of the axis."""
    close = 1e-3 if evidence.leaf.eps < 1e-4 else 8 * evidence.leaf.eps
    for name, vector in _vectors(evidence, axis, len(factors)):
        for form, of in (
            ("{}", lambda v: v),
            ("1/{}", lambda v: 1 / v),
            ("{}²", np.square),
            ("1/{}²", lambda v: v**-2.0),
        ):
            with np.errstate(all="ignore"):
                ratios = factors / of(vector)
            if np.all(np.isfinite(ratios)) and np.allclose(ratios, np.mean(ratios), rtol=close, atol=0):
                times = float(np.mean(ratios))
                scale = "" if abs(times - 1) < close else f"{times:.4g} · "
                missing = " (is it dropped?)" if form.startswith("1/") else " (is it once too much?)"
                return scale + form.format(name) + missing
    return None


def _vectors(evidence: Evidence, axis: int, length: int) -> Iterator[tuple[str, np.ndarray]]:
    problem = evidence.problem
    pairs = [*zip(problem.inputs, evidence.arrays, strict=True), *zip(problem.outputs, evidence.outputs, strict=True)]
    for leaf, array in pairs:
        if array.shape == (length,):
            yield f"`{leaf.name}`", array
            if np.all(array > 0):
                yield f"√`{leaf.name}`", np.sqrt(array)
    for leaf, array in pairs:
        for kept in [axis] if leaf is evidence.leaf else range(array.ndim):
            others = tuple(other for other in range(array.ndim) if other != kept)
            if others and array.shape[kept] == length and np.all(np.isfinite(array)):
                yield f"the standard deviation of `{leaf.name}`", np.std(array, others)
