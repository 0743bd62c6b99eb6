"""Guesses at what is wrong with a rule, from the shape of its error: each a function of the evidence, or no guess.

A guess is made only where it explains every case to within rounding.
"""

from collections.abc import Callable, Iterator
from itertools import chain, combinations

import numpy as np

from jaxbn.testing.evidence import Evidence
from jaxbn.testing.factors import constant_factor, factor_along_an_axis
from jaxbn.testing.terms import missing_term


def nothing_comes_back(evidence: Evidence) -> str | None:
    if not all(np.all(got == 0) for got in evidence.got):
        return None
    return "zero: nothing comes back at all; is the cotangent forgotten, or behind a `stop_gradient`?"


def not_finite(evidence: Evidence) -> str | None:
    if all(np.all(np.isfinite(got)) for got in evidence.got):
        return None
    return "not finite: infinity or NaN where the truth is finite; a division by zero or an overflow"


def swapped_cotangents(evidence: Evidence) -> str | None:
    for place, leaf in evidence.others:
        if evidence.explained_by(lambda case, place=place: evidence.want[case][place]):
            return f"swapped: this is the cotangent of `{leaf.name}`; are the two returned in each other's place?"
    return None


def swapped_arguments(evidence: Evidence) -> str | None:
    inputs = evidence.problem.inputs
    for first, second in combinations(range(len(inputs)), 2):
        if inputs[first].shape == inputs[second].shape:
            arrays = list(evidence.arrays)
            arrays[first], arrays[second] = arrays[second], arrays[first]
            if evidence.explained_by(lambda case, arrays=arrays: evidence.truth(case, arrays)):
                names = f"`{inputs[first].name}` and `{inputs[second].name}`"
                return f"swapped arguments: {names} are used in each other's place"
    return None


def ignored_output(evidence: Evidence) -> str | None:
    outputs = evidence.problem.outputs
    counts = sorted({1, 2, len(outputs) - 1} & set(range(1, len(outputs))))  # there are too many ways to ignore some
    for ignored in chain(*(combinations(range(len(outputs)), count) for count in counts)):

        def without(case: int, ignored: tuple[int, ...] = ignored) -> np.ndarray:
            dy = [np.zeros_like(d) if place in ignored else d for place, d in enumerate(evidence.dy[case])]
            return evidence.truth(case, dy=dy)

        if evidence.explained_by(without):
            names = " and ".join(outputs[place].name for place in ignored)
            return f"ignored: the cotangent of {names} does not come back"
    return None


Rearrangement = tuple[str, Callable[[np.ndarray], np.ndarray]]


def _rearrangements(shape: tuple[int, ...]) -> Iterator[Rearrangement]:
    """Flips, exchanges of equal axes, other orders of blocks: all that keep the shape."""
    rank = len(shape)
    for axes in chain(*(combinations(range(rank), count) for count in range(1, rank + 1))):
        if all(shape[axis] > 1 for axis in axes):
            yield f"flipped along {_axes(axes)}", lambda array, axes=axes: np.flip(array, axes)
    for first, second in combinations(range(rank), 2):
        if shape[first] == shape[second] > 1:
            name = f"transposed: axes {first} and {second} are exchanged"
            yield name, lambda array, first=first, second=second: np.swapaxes(array, first, second)
    for axis, length in enumerate(shape):
        for blocks in range(2, length):
            if length % blocks == 0:
                name = f"in another order along axis {axis}: ({blocks}, {length // blocks}) read as the transpose"
                yield name, lambda array, axis=axis, blocks=blocks: _reordered(array, axis, blocks)


def _reordered(array: np.ndarray, axis: int, blocks: int) -> np.ndarray:
    array = np.moveaxis(array, axis, -1)
    split = array.reshape(*array.shape[:-1], blocks, -1)
    return np.moveaxis(np.swapaxes(split, -1, -2).reshape(array.shape), -1, axis)


def rearranged_cotangent(evidence: Evidence) -> str | None:
    for name, rearrange in _rearrangements(evidence.leaf.shape):
        if evidence.explained_by(lambda case, rearrange=rearrange: rearrange(evidence.wanted[case])):
            return f"{name}: this is what is wanted, rearranged"
    return None


def rearranged_argument(evidence: Evidence) -> str | None:
    """As of a kernel that is not flipped where it should be."""
    for place, leaf in enumerate(evidence.problem.inputs):
        for name, rearrange in _rearrangements(leaf.shape):
            arrays = [rearrange(a) if other == place else a for other, a in enumerate(evidence.arrays)]
            if evidence.explained_by(lambda case, arrays=arrays: evidence.truth(case, arrays)):
                return f"{name}: `{leaf.name}` is used so, and should not be, or should be and is not"
    return None


def rearranged_output(evidence: Evidence) -> str | None:
    for place, leaf in enumerate(evidence.problem.outputs):
        for name, rearrange in _rearrangements(leaf.shape):

            def other(case: int, place: int = place, rearrange: Callable = rearrange) -> np.ndarray:
                dy = [rearrange(d) if number == place else d for number, d in enumerate(evidence.dy[case])]
                return evidence.truth(case, dy=dy)

            if evidence.explained_by(other):
                return f"{name}: the cotangent of {leaf.name} is used so"
    return None


def missing_sum(evidence: Evidence) -> str | None:
    """Only one entry of an axis counts, where all should be added up."""
    for place, leaf in enumerate(evidence.problem.outputs):
        long = [axis for axis, length in enumerate(leaf.shape) if length > 1]
        for axes in chain(*(combinations(long, count) for count in range(1, len(long) + 1))):
            for end, word in ((0, "first"), (-1, "last")):

                def restricted(case: int, place: int = place, axes: tuple = axes, end: int = end) -> np.ndarray:
                    dy = list(evidence.dy[case])
                    index = tuple(end if axis in axes else slice(None) for axis in range(dy[place].ndim))
                    kept = np.zeros_like(dy[place])
                    kept[index] = dy[place][index]
                    dy[place] = kept
                    return evidence.truth(case, dy=dy)

                if evidence.explained_by(restricted):
                    return f"a missing sum over {_axes(axes)} of {leaf.name}: only its {word} entry counts"
    return None


def shifted(evidence: Evidence) -> str | None:
    """By a place or two, along one axis or several; what came in from beyond the edge is not compared."""
    shape = evidence.leaf.shape
    for axes in chain(*(combinations(range(len(shape)), count) for count in range(1, 4))):
        for step in (1, -1, 2, -2):
            if any(shape[axis] - abs(step) < 2 for axis in axes):
                continue
            pairs = [
                (_inside(got, axes, step), _inside(want, axes, -step))
                for got, want in zip(evidence.got, evidence.wanted, strict=True)
            ]
            if evidence.same([got for got, _ in pairs], [want for _, want in pairs]):
                return f"shifted by {step} along {_axes(axes)}: an index or a padding is off"
    return None


def _inside(array: np.ndarray, axes: tuple[int, ...], step: int) -> np.ndarray:
    for axis in axes:
        array = _along(array, axis, slice(max(step, 0), array.shape[axis] + min(step, 0)))
    return array


def mask_ignored(evidence: Evidence) -> str | None:
    """Some entries are to be zero whatever is sent back; those alone are wrong."""
    zero = np.all([want == 0 for want in evidence.wanted], axis=0)
    if np.all(zero) or not evidence.explained_by(
        lambda case: np.where(zero, evidence.got[case], evidence.wanted[case])
    ):
        return None
    return f"a mask ignored: {int(np.sum(zero))} entries must be zero and are not; the others are right"


def wrong_in_places(evidence: Evidence) -> str | None:
    """Some indices of an axis alone are wrong."""
    pairs = list(zip(evidence.got, evidence.wanted, strict=True))
    for axis, length in enumerate(evidence.leaf.shape):
        slices = [slice(index, index + 1) for index in range(length)]
        wrong = [
            index
            for index, each in enumerate(slices)
            if not all(
                evidence.agree(k, _along(g, axis, each), _along(w, axis, each)) for k, (g, w) in enumerate(pairs)
            )
        ]
        if 0 < len(wrong) <= length // 2:
            empty = all(np.all(_along(got, axis, slices[index]) == 0) for got in evidence.got for index in wrong)
            what = "is zero" if empty else "is wrong"
            return f"a part: it {what} at {wrong} of the {length} indices of axis {axis} alone, and right elsewhere"
    return None


def rounding(evidence: Evidence) -> str | None:
    """As coarse as another dtype's."""
    errors = [_ratio(got, want) for got, want in zip(evidence.got, evidence.wanted, strict=True)]
    for name, eps in (("float32", 2.0**-23), ("float16", 2.0**-10), ("bfloat16", 2.0**-7)):
        if eps > 4 * evidence.leaf.eps and max(errors) <= eps:
            return f"rounding: the error is as small as {name}'s; is something kept or computed in {name}?"
    return None


def _ratio(got: np.ndarray, want: np.ndarray) -> float:
    return float(np.max(np.abs(got - want)) / (np.max(np.abs(want)) or 1.0))


def _along(array: np.ndarray, axis: int, part: slice) -> np.ndarray:
    return array[(slice(None),) * axis + (part,)]


def _axes(axes: tuple[int, ...]) -> str:
    return f"axis {axes[0]}" if len(axes) == 1 else f"axes {' and '.join(map(str, axes))}"


CAUSES: tuple[Callable[[Evidence], str | None], ...] = (
    not_finite,
    nothing_comes_back,
    ignored_output,
    rounding,
    constant_factor,
    swapped_cotangents,
    rearranged_cotangent,
    rearranged_argument,
    swapped_arguments,
    factor_along_an_axis,
    missing_sum,
    rearranged_output,
    shifted,
    mask_ignored,
    wrong_in_places,
    missing_term,
)
"""The more particular ones first."""
