"""Scores the results of a rule by comparing them with the truth."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxbn.testing.cotangents import size_of
from jaxbn.testing.oracle import Evaluator, to_float64
from jaxbn.testing.precision import FLOAT64, Trial, compare, float64_autodiff
from jaxbn.testing.problem import Leaf


class Scorer:
    """Scores the results of a derivative; ``leaves`` are the types of those results."""

    def __init__(self, evaluator: Evaluator, leaves: Sequence[Leaf]) -> None:
        self.evaluator, self.leaves = evaluator, leaves

    def expected(self, *vectors: Sequence[Any]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The right results in float64, and autodiff's in the leaves' dtypes."""
        want = _gradients(self.evaluator.exact(*vectors))
        autodiff = _gradients(self.evaluator.autodiff(*vectors))
        if any(leaf.dtype == FLOAT64 for leaf in self.leaves):
            narrow, exact = map(_gradients, self.evaluator.in_float32(*vectors))
            for place, leaf in enumerate(self.leaves):
                if leaf.dtype == FLOAT64:
                    autodiff[place] = float64_autodiff(want[place], narrow[place], exact[place])
        return want, autodiff

    def trial(self, label: str, got: Sequence[Any], *vectors: Sequence[Any], **notes: Any) -> Trial:
        """Scores ``got`` against the truth at ``vectors``."""
        return self.trial_against(label, got, *self.expected(*vectors), *vectors, **notes)

    def trial_against(
        self,
        label: str,
        got: Sequence[Any],
        want: Sequence[np.ndarray],
        autodiff: Sequence[np.ndarray],
        *vectors: Sequence[Any],
        **notes: Any,
    ) -> Trial:
        """Scores ``got`` against results that are already known. Errors are relative to the last of ``vectors``."""
        unit = max(size_of(vectors[-1]), float(np.finfo(np.float64).tiny))
        scores = [
            compare(leaf, to_float64(g), w, a, unit)
            for leaf, g, w, a in zip(self.leaves, got, want, autodiff, strict=True)
        ]
        return Trial(label, vectors, scores, notes)


def _gradients(result: Any) -> list[np.ndarray]:
    """Returns the gradients. The result of a pullback has the outputs too, which are dropped."""
    return result[1] if isinstance(result, tuple) else result
