"""Guesses what is wrong with a rule from its gradient and the right one.

Each function here recognises one kind of mistake. It returns a sentence if that mistake explains every case up to
rounding, and None otherwise.
"""

from collections.abc import Callable, Iterator
from itertools import chain, combinations

import numpy as np

from jaxbn.testing.evidence import Evidence, axes_in_words
from jaxbn.testing.factors import constant_factor, factor_along_an_axis
from jaxbn.testing.terms import missing_term


def zero_gradient(evidence: Evidence) -> str | None:
    if not all(np.all(got == 0) for got in evidence.got):
        return None
    return "zero: nothing comes back; is the cotangent left out, or is there a `stop_gradient`?"


def not_finite(evidence: Evidence) -> str | None:
    if all(np.all(np.isfinite(got)) for got in evidence.got):
        return None
    return "not finite: infinity or NaN where the truth is finite; a division by zero or an overflow"


def swapped_cotangents(evidence: Evidence) -> str | None:
    for place, leaf in evidence.inputs_of_same_shape():
        if evidence.explained_by(lambda case, place=place: evidence.gradients[case][place]):
            return f"swapped: this is the cotangent of `{leaf.name}`; are the two returned in the wrong order?"
    return None


def swapped_arguments(evidence: Evidence) -> str | None:
    inputs = evidence.problem.inputs
    for first, second in combinations(range(len(inputs)), 2):
        if inputs[first].shape == inputs[second].shape:
            arrays = list(evidence.arrays)
            arrays[first], arrays[second] = arrays[second], arrays[first]
            if evidence.explained_by(lambda case, arrays=arrays: evidence.gradient(case, arrays)):
                names = f"`{inputs[first].name}` and `{inputs[second].name}`"
                return f"swapped arguments: the rule exchanges {names}"
    return None


def ignored_output(evidence: Evidence) -> str | None:
    outputs = evidence.problem.outputs
    # All subsets would be too many: only one or two outputs, or all but one, are tried.
    counts = sorted({1, 2, len(outputs) - 1} & set(range(1, len(outputs))))
    for ignored in chain(*(combinations(range(len(outputs)), count) for count in counts)):

        def without(case: int, ignored: tuple[int, ...] = ignored) -> np.ndarray:
            dy = [np.zeros_like(d) if place in ignored else d for place, d in enumerate(evidence.dy[case])]
            return evidence.gradient(case, dy=dy)

        if evidence.explained_by(without):
            names = " and ".join(outputs[place].name for place in ignored)
            return f"ignored: the cotangent of {names} has no effect"
    return None


Rearrangement = tuple[str, Callable[[np.ndarray], np.ndarray]]


def _rearrangements(shape: tuple[int, ...]) -> Iterator[Rearrangement]:
    """Yields all flips, transpositions of two axes and reorderings of blocks that keep the shape."""
    rank = len(shape)
    for axes in chain(*(combinations(range(rank), count) for count in range(1, rank + 1))):
        if all(shape[axis] > 1 for axis in axes):
            yield f"flipped along {axes_in_words(axes)}", lambda array, axes=axes: np.flip(array, axes)
    for first, second in combinations(range(rank), 2):
        if shape[first] == shape[second] > 1:
            name = f"transposed: axes {first} and {second} are exchanged"
            yield name, lambda array, first=first, second=second: np.swapaxes(array, first, second)
    for axis, length in enumerate(shape):
        for blocks in range(2, length):
            if length % blocks == 0:
                name = f"in another order along axis {axis}: ({blocks}, {length // blocks}) read as the transpose"
                yield name, lambda array, axis=axis, blocks=blocks: _transposed_blocks(array, axis, blocks)


def _transposed_blocks(array: np.ndarray, axis: int, blocks: int) -> np.ndarray:
    array = np.moveaxis(array, axis, -1)
    split = array.reshape(*array.shape[:-1], blocks, -1)
    return np.moveaxis(np.swapaxes(split, -1, -2).reshape(array.shape), -1, axis)


def rearranged_cotangent(evidence: Evidence) -> str | None:
    for name, rearrange in _rearrangements(evidence.leaf.shape):
        if evidence.explained_by(lambda case, rearrange=rearrange: rearrange(evidence.want[case])):
            return f"{name}: this is what is wanted, rearranged"
    return None


def rearranged_argument(evidence: Evidence) -> str | None:
    """Recognises, for example, a kernel that is flipped, or is not flipped although it should be."""
    for place, leaf in enumerate(evidence.problem.inputs):
        for name, rearrange in _rearrangements(leaf.shape):
            arrays = [rearrange(a) if other == place else a for other, a in enumerate(evidence.arrays)]
            if evidence.explained_by(lambda case, arrays=arrays: evidence.gradient(case, arrays)):
                return f"{name}: `{leaf.name}` is rearranged in this way but should not be, or the other way round"
    return None


def rearranged_output(evidence: Evidence) -> str | None:
    for place, leaf in enumerate(evidence.problem.outputs):
        for name, rearrange in _rearrangements(leaf.shape):

            def rearranged(case: int, place: int = place, rearrange: Callable = rearrange) -> np.ndarray:
                dy = [rearrange(d) if other == place else d for other, d in enumerate(evidence.dy[case])]
                return evidence.gradient(case, dy=dy)

            if evidence.explained_by(rearranged):
                return f"{name}: the cotangent of {leaf.name} is rearranged in this way"
    return None


def missing_sum(evidence: Evidence) -> str | None:
    """Recognises a rule that uses only the first or the last entry along axes that should be summed over."""
    for place, leaf in enumerate(evidence.problem.outputs):
        long_axes = [axis for axis, length in enumerate(leaf.shape) if length > 1]
        for axes in chain(*(combinations(long_axes, count) for count in range(1, len(long_axes) + 1))):
            for end, word in ((0, "first"), (-1, "last")):

                def restricted(case: int, place: int = place, axes: tuple = axes, end: int = end) -> np.ndarray:
                    dy = list(evidence.dy[case])
                    index = tuple(end if axis in axes else slice(None) for axis in range(dy[place].ndim))
                    kept = np.zeros_like(dy[place])
                    kept[index] = dy[place][index]
                    dy[place] = kept
                    return evidence.gradient(case, dy=dy)

                if evidence.explained_by(restricted):
                    return f"a missing sum over {axes_in_words(axes)} of {leaf.name}: only its {word} entry is used"
    return None


def shifted(evidence: Evidence) -> str | None:
    """Recognises a shift by one or two entries along some axes. Entries shifted in at the edges do not count."""
    shape = evidence.leaf.shape
    for axes in chain(*(combinations(range(len(shape)), count) for count in range(1, 4))):
        for step in (1, -1, 2, -2):
            if any(shape[axis] - abs(step) < 2 for axis in axes):
                continue
            got = [_without_edge(array, axes, step) for array in evidence.got]
            want = [_without_edge(array, axes, -step) for array in evidence.want]
            if evidence.agree_in_all_cases(got, want):
                return f"shifted by {step} along {axes_in_words(axes)}: an index or a padding is off"
    return None


def _without_edge(array: np.ndarray, axes: tuple[int, ...], step: int) -> np.ndarray:
    """Cuts off the first ``step`` entries along ``axes``, or the last ``-step``."""
    for axis in axes:
        array = _part(array, axis, slice(max(step, 0), array.shape[axis] + min(step, 0)))
    return array


def mask_ignored(evidence: Evidence) -> str | None:
    """Recognises a gradient that is wrong only in entries that must be zero for every cotangent."""
    zero = np.all([want == 0 for want in evidence.want], axis=0)
    if np.all(zero) or not evidence.explained_by(lambda case: np.where(zero, evidence.got[case], evidence.want[case])):
        return None
    return f"a mask ignored: {int(np.sum(zero))} entries must be zero and are not; the others are right"


def wrong_in_part(evidence: Evidence) -> str | None:
    """Recognises a gradient that is wrong only at some indices of an axis."""
    pairs = list(zip(evidence.got, evidence.want, strict=True))
    for axis, length in enumerate(evidence.leaf.shape):
        slices = [slice(index, index + 1) for index in range(length)]
        wrong = [
            index
            for index, part in enumerate(slices)
            if not all(
                evidence.agree(case, _part(got, axis, part), _part(want, axis, part))
                for case, (got, want) in enumerate(pairs)
            )
        ]
        if 0 < len(wrong) <= length // 2:
            zero = all(np.all(_part(got, axis, slices[index]) == 0) for got in evidence.got for index in wrong)
            fault = "is zero" if zero else "is wrong"
            return f"a part: it {fault} at {wrong} of the {length} indices of axis {axis}, and right elsewhere"
    return None


def rounding(evidence: Evidence) -> str | None:
    """Recognises an error that the rounding of a narrower dtype explains."""
    errors = [_relative_error(got, want) for got, want in zip(evidence.got, evidence.want, strict=True)]
    for name, eps in (("float32", 2.0**-23), ("float16", 2.0**-10), ("bfloat16", 2.0**-7)):
        if eps > 4 * evidence.leaf.eps and max(errors) <= eps:
            return f"rounding: the error is as small as {name}'s; is something kept or computed in {name}?"
    return None


def _relative_error(got: np.ndarray, want: np.ndarray) -> float:
    return float(np.max(np.abs(got - want)) / (np.max(np.abs(want)) or 1.0))


def _part(array: np.ndarray, axis: int, part: slice) -> np.ndarray:
    return array[(slice(None),) * axis + (part,)]


CAUSES: tuple[Callable[[Evidence], str | None], ...] = (
    not_finite,
    zero_gradient,
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
    wrong_in_part,
    missing_term,
)
"""They are tried in this order, the more specific ones first."""
