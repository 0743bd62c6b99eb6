"""Gathers evidence for guesses at causes: the rule's gradient and the right one, for several random cotangents."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from jaxbn.testing.cotangents import gaussian, size_of
from jaxbn.testing.oracle import Arrays, Evaluator, to_float64
from jaxbn.testing.problem import Leaf, Problem

CASES = 6
"""The number of cotangents."""


class Evidence:
    """The evidence about the gradient with respect to one input. Each case has one cotangent. All arrays are float64.

    Attributes:
        leaf: The input.
        place: Its place among the inputs.
        arrays: The inputs.
        outputs: The outputs.
        dy: For each case, the outputs' cotangents.
        got: For each case, the gradient that the rule gave for this input.
        want: For each case, the right gradient for this input.
        gradients: For each case, the right gradients for all inputs.
    """

    def __init__(self, problem: Problem, evaluator: Evaluator, place: int, budget: float, seed: int) -> None:
        self.problem, self.place, self.leaf = problem, place, problem.inputs[place]
        self._evaluator = evaluator
        self.arrays = list(map(to_float64, problem.arrays))
        cotangents = [gaussian(problem.outputs, seed, 8000 + case).arrays for case in range(CASES)]
        self.dy = [list(map(to_float64, dy)) for dy in cotangents]
        self.got = [to_float64(evaluator.rule(problem.arrays, dy)[1][place]) for dy in cotangents]
        exact = [evaluator.exact(self.arrays, dy) for dy in self.dy]
        self.outputs: Arrays = exact[0][0]
        self.gradients: list[Arrays] = [gradients for _, gradients in exact]
        self.want: Arrays = [gradients[place] for gradients in self.gradients]
        largest = max(_largest_entry(want) / size_of(dy) for want, dy in zip(self.want, self.dy, strict=True))
        self._tolerance = min(4 * budget / largest, 0.05) if largest else 0.0

    def inputs_of_same_shape(self) -> Iterator[tuple[int, Leaf]]:
        for place, leaf in enumerate(self.problem.inputs):
            if place != self.place and leaf.shape == self.leaf.shape:
                yield place, leaf

    def known_arrays(self) -> list[tuple[Leaf, np.ndarray]]:
        """All inputs and outputs."""
        problem = self.problem
        return [*zip(problem.inputs, self.arrays, strict=True), *zip(problem.outputs, self.outputs, strict=True)]

    def agree(self, case: int, left: np.ndarray, right: np.ndarray) -> bool:
        """Whether two parts of the gradient are equal up to rounding."""
        if left.shape != right.shape:
            return False
        largest = max(_largest_entry(self.want[case]), _largest_entry(self.got[case]))
        return bool(np.all(np.abs(left - right) <= self._tolerance * largest))

    def agree_in_all_cases(self, left: Sequence[np.ndarray], right: Sequence[np.ndarray]) -> bool:
        return all(self.agree(case, a, b) for case, (a, b) in enumerate(zip(left, right, strict=True)))

    def explained_by(self, mistaken: Callable[[int], np.ndarray]) -> bool:
        """Whether the rule gave ``mistaken(case)`` in every case. Stops at the first case that differs."""
        return all(self.agree(case, self.got[case], mistaken(case)) for case in range(CASES))

    def gradient(self, case: int, arrays: Sequence[np.ndarray] | None = None, dy: Any = None) -> np.ndarray:
        """The right gradient for other inputs or another cotangent."""
        arrays = self.arrays if arrays is None else arrays
        return self._evaluator.exact(list(arrays), self.dy[case] if dy is None else dy)[1][self.place]

    @property
    def is_informative(self) -> bool:
        """Whether the right gradient has any entry that is not zero."""
        return bool(self.leaf.size) and any(_largest_entry(want) > 0 for want in self.want)


def axes_in_words(axes: Sequence[int]) -> str:
    return f"axis {axes[0]}" if len(axes) == 1 else f"axes {' and '.join(map(str, axes))}"


def _largest_entry(array: np.ndarray) -> float:
    finite = np.abs(array[np.isfinite(array)])
    return float(np.max(finite, initial=0.0))
