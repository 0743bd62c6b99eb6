"""The precision rule: when an error is rounding, and when it is a mistake.

For each argument leaf, pooled over at least sixteen Gaussian cotangents and the special ones, every error against
float64 is divided by its ‖dy‖∞. The worst one may be

    max(4 · worst(autodiff of the reference in the same dtypes), 8 · eps · √N · S)

with S the largest ‖want‖∞ / ‖dy‖∞ and N the size of dy. The floor saves correct rules whose autodiff happens to be
exact; it ends at S / 4, since a floor of S would let a gradient of zero pass. In float64 nothing is more exact than
autodiff: its error is float32's, in the ratio of the epsilons, and 1e-12 · S is granted.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxbn.testing.problem import Leaf

FLOAT64 = np.dtype(np.float64)
HEADROOM = 8
"""How close to its dtype's largest number an entry may overflow: the terms of its sum may be so much larger."""

FLOAT64_TO_FLOAT32 = float(np.finfo(np.float64).eps / np.finfo(np.float32).eps)


@dataclass(frozen=True)
class Score:
    """How far one array is from the truth, in units of ‖dy‖∞."""

    error: float
    autodiff: float  # autodiff's error
    largest: float  # of what is wanted
    unit: float  # ‖dy‖∞
    index: tuple[int, ...] | None  # of the worst entry; none of an empty array
    got: float
    want: float
    left_out: int  # entries whose truth is not finite, or that overflow where autodiff does or nearly does


@dataclass(frozen=True)
class Trial:
    """One set of arguments and vectors, and a score for each array that came of it."""

    label: str
    vectors: tuple[Sequence[Any], ...]  # arguments, cotangents
    scores: list[Score]
    notes: dict[str, Any] = field(default_factory=dict)


def score(leaf: Leaf, got: np.ndarray, want: np.ndarray, autodiff: np.ndarray, unit: float) -> Score:
    """``got`` against ``want``, both float64; ``autodiff`` is what the reference gives in the leaf's dtype."""
    largest = float(jnp.finfo(leaf.dtype).max)
    usable = np.isfinite(want) & (np.abs(want) <= largest) & np.isfinite(autodiff)
    usable &= np.isfinite(got) | (np.abs(want) <= largest / HEADROOM)
    safe = np.where(usable, want, 0.0)
    error = np.abs(np.where(usable, got, 0.0) - safe)
    error = np.where(np.isnan(error), np.inf, error)
    plain = np.abs(np.where(usable, autodiff, 0.0) - safe)
    if not error.size:
        return Score(0.0, 0.0, 0.0, unit, None, 0.0, 0.0, 0)
    index = np.unravel_index(int(np.argmax(error)), error.shape)
    return Score(
        float(error.max()) / unit,
        float(plain.max()) / unit,
        float(np.abs(safe).max()) / unit,
        unit,
        tuple(int(each) for each in index),
        float(got[index]),
        float(want[index]),
        int(np.sum(~usable)),
    )


def in_float64(want: np.ndarray, narrow: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """What autodiff would give in float64, had it float32's error, ``narrow − exact``, in the epsilons' ratio."""
    with np.errstate(invalid="ignore"):  # infinity less infinity
        return want + FLOAT64_TO_FLOAT32 * (narrow - exact)


def budget(leaf: Leaf, scores: Iterable[Score], size: int) -> float:
    """What an error may be; ``size`` is N."""
    scores = list(scores)
    largest = max((each.largest for each in scores), default=0.0)
    autodiff = max((each.autodiff for each in scores), default=0.0)
    floor = min(8 * leaf.eps * np.sqrt(size), 0.25) * largest
    if leaf.dtype == FLOAT64:
        # Where float32 loses every digit it says nothing of float64.
        floor = max(floor, 1e-12 * largest)
        autodiff = min(autodiff, 1e-6 * largest)
    return float(max(4 * autodiff, floor))
