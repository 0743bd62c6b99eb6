"""The precision rule, which distinguishes rounding errors from mistakes.

Errors are measured against float64 and divided by ‖dy‖∞, the largest entry of the cotangent. For each input they are
pooled over at least sixteen Gaussian cotangents and the special ones. The largest error may be

    max(4 · worst(autodiff of the reference in the same dtypes), 8 · eps · √N · S)

where S is the largest ‖want‖∞ / ‖dy‖∞ and N is the size of dy. The second term is needed where autodiff happens to be
exact. It is at most S / 4, because a budget of S would accept a gradient of zero. In float64 nothing is more precise
than autodiff, so its error is estimated from float32's by the ratio of the epsilons, and at least 1e-12 · S is allowed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxbn.testing.problem import Leaf

FLOAT64 = np.dtype(np.float64)
HEADROOM = 8
"""The rule may overflow where the right entry is within this factor of its dtype's largest number.

The terms of a sum may be larger than the sum.
"""

FLOAT64_TO_FLOAT32 = float(np.finfo(np.float64).eps / np.finfo(np.float32).eps)


@dataclass(frozen=True)
class Score:
    """The error of one array, in units of ‖dy‖∞."""

    error: float
    autodiff_error: float
    largest: float  # the largest entry of the right array
    index: tuple[int, ...] | None  # of the worst entry; None for an empty array
    got: float  # the worst entry
    want: float
    left_out: int  # entries that are not compared: the truth is not finite, or autodiff overflows or nearly does


@dataclass(frozen=True)
class Trial:
    """One evaluation of the rule, with a score for each array that it returned."""

    label: str
    vectors: tuple[Sequence[Any], ...]  # the inputs, the cotangents
    scores: list[Score]
    notes: dict[str, Any] = field(default_factory=dict)


def compare(leaf: Leaf, got: np.ndarray, want: np.ndarray, autodiff: np.ndarray, unit: float) -> Score:
    """The score of ``got`` against ``want``; ``autodiff`` is the reference's result in the leaf's dtype.

    All three arrays are given as float64. ``unit`` is ‖dy‖∞.
    """
    largest = float(jnp.finfo(leaf.dtype).max)
    usable = np.isfinite(want) & (np.abs(want) <= largest) & np.isfinite(autodiff)
    usable &= np.isfinite(got) | (np.abs(want) <= largest / HEADROOM)
    safe = np.where(usable, want, 0.0)
    error = np.abs(np.where(usable, got, 0.0) - safe)
    error = np.where(np.isnan(error), np.inf, error)
    autodiff_error = np.abs(np.where(usable, autodiff, 0.0) - safe)
    if not error.size:
        return Score(0.0, 0.0, 0.0, None, 0.0, 0.0, 0)
    index = np.unravel_index(int(np.argmax(error)), error.shape)
    return Score(
        error=float(error.max()) / unit,
        autodiff_error=float(autodiff_error.max()) / unit,
        largest=float(np.abs(safe).max()) / unit,
        index=tuple(int(i) for i in index),
        got=float(got[index]),
        want=float(want[index]),
        left_out=int(np.sum(~usable)),
    )


def float64_autodiff(want: np.ndarray, narrow: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Estimates autodiff's result in float64: the truth plus float32's error, ``narrow − exact``, scaled down."""
    with np.errstate(invalid="ignore"):  # infinity minus infinity
        return want + FLOAT64_TO_FLOAT32 * (narrow - exact)


def budget(leaf: Leaf, scores: Iterable[Score], size: int) -> float:
    """The largest error that rounding explains; ``size`` is N."""
    scores = list(scores)
    largest = max((score.largest for score in scores), default=0.0)
    autodiff = max((score.autodiff_error for score in scores), default=0.0)
    floor = min(8 * leaf.eps * np.sqrt(size), 0.25) * largest
    if leaf.dtype == FLOAT64:
        floor = max(floor, 1e-12 * largest)
        # If float32 loses every digit, its error says nothing about float64's.
        autodiff = min(autodiff, 1e-6 * largest)
    return float(max(4 * autodiff, floor))
