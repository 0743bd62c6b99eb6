"""What a guess at a cause goes by: the wrong cotangent and the right one, for a few random ones sent back."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxbn.testing.cotangents import gaussian, size_of
from jaxbn.testing.oracle import Arrays, Sides, doubled
from jaxbn.testing.problem import Leaf, Problem

CASES = 6


class Evidence:
    """About one input. ``got`` and ``want`` have one entry for each case, in float64.

    Attributes:
        leaf: The input.
        place: Its place among the inputs.
        arrays: The inputs.
        outputs: The values of the outputs.
        dy: For each case, what was sent back.
        got: For each case, what the rule gave for this input.
        want: For each case, what is right for each input.
    """

    def __init__(self, problem: Problem, sides: Sides, place: int, budget: float, seed: int) -> None:
        self.problem, self.place, self.leaf = problem, place, problem.inputs[place]
        self._sides = sides
        self.arrays = list(map(doubled, problem.arrays))
        sent = [gaussian(problem.outputs, seed, 8000 + case).arrays for case in range(CASES)]
        self.dy = [list(map(doubled, dy)) for dy in sent]
        self.got = [doubled(sides.rule(problem.arrays, dy)[1][place]) for dy in sent]
        exact = [sides.exact(self.arrays, dy) for dy in self.dy]
        self.outputs: Arrays = exact[0][0]
        self.want: list[Arrays] = [gradients for _, gradients in exact]
        self._units = [size_of(dy) for dy in self.dy]
        largest = max(_size(want[place]) / unit for want, unit in zip(self.want, self._units, strict=True))
        self._relative = min(4 * budget / largest, 0.05) if largest else 0.0

    @property
    def wanted(self) -> Arrays:
        """What is right for this input."""
        return [want[self.place] for want in self.want]

    @property
    def others(self) -> list[tuple[int, Leaf]]:
        """The other inputs of the same shape."""
        inputs = enumerate(self.problem.inputs)
        return [(place, leaf) for place, leaf in inputs if place != self.place and leaf.shape == self.leaf.shape]

    def same(self, left: Sequence[np.ndarray], right: Sequence[np.ndarray]) -> bool:
        """Whether two ways to the cotangent agree in all cases, but for rounding."""
        return all(self.agree(case, a, b) for case, (a, b) in enumerate(zip(left, right, strict=True)))

    def agree(self, case: int, left: np.ndarray, right: np.ndarray) -> bool:
        if left.shape != right.shape:
            return False
        largest = max(_size(self.wanted[case]), _size(self.got[case]))
        return bool(np.all(np.abs(left - right) <= self._relative * largest))

    def explained_by(self, right: Callable[[int], np.ndarray]) -> bool:
        """Whether ``right(case)`` is what the rule gave; the first case that differs settles it."""
        return all(self.agree(case, self.got[case], right(case)) for case in range(CASES))

    def truth(self, case: int, arrays: Sequence[np.ndarray] | None = None, dy: Any = None) -> np.ndarray:
        """What would be right for other arguments or another cotangent."""
        arrays = self.arrays if arrays is None else arrays
        return self._sides.exact(list(arrays), self.dy[case] if dy is None else dy)[1][self.place]

    @property
    def informative(self) -> bool:
        """Whether there is anything to go by."""
        return bool(self.leaf.size) and any(_size(want) > 0 for want in self.wanted)


def _size(array: np.ndarray) -> float:
    finite = np.abs(array[np.isfinite(array)])
    return float(np.max(finite, initial=0.0))
