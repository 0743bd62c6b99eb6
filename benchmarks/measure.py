"""Measures ratios of times in one process.

Both programs are compiled and warmed up, then timed alternately (A B A B). The ratio is that of the medians.
"""

import re
from collections.abc import Callable, Mapping
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.timing import Effort, Run, Timer, alone, medians

REPETITIONS = 3
"""How often a ratio below its floor is measured again."""


class DifferentResults(Exception):
    """Raised if the two programs compute different results, so that their times cannot be compared."""


class Program:
    """A compiled function with its operands. A call waits for the result."""

    def __init__(self, function: Callable[..., Any], operands: tuple[Any, ...]) -> None:
        self.function = function
        self.compiled = jax.jit(function).lower(*operands).compile()
        self.operands = jax.device_put(operands)

    def __call__(self) -> Any:
        return jax.block_until_ready(self.compiled(*self.operands))

    def in_float64(self) -> Any:
        with jax.enable_x64(True):
            operands = jax.tree.map(_to_float64, jax.device_get(self.operands))
            return jax.device_get(jax.jit(self.function)(*operands))

    @property
    def text(self) -> str:
        """The optimised HLO, without names and source locations, so that equal programs have equal texts."""
        text = re.sub(r"HloModule [^\s,]+", "HloModule", self.compiled.as_text() or "")
        text = re.sub(r", metadata=\{[^}]*\}", "", text)
        text = re.sub(r"([(,] ?)[\w.\-]+: ", r"\1", text)  # names of parameters in the heading of a computation
        # Some versions of XLA write tables of source files and stack frames before the first computation.
        text = re.sub(r"\n(FileNames|FunctionNames|FileLocations|StackFrames)\n(.+\n)*", "\n", text)
        names: dict[str, str] = {}
        return re.sub(r"%[\w.\-]+", lambda match: names.setdefault(match[0], f"%{len(names)}"), text)


class Comparison(NamedTuple):
    """Programs to compare: this library's and plain autodiff's, and those of other libraries."""

    case: str
    quantity: str
    floor: float | None
    sides: Callable[[], tuple[Run, Run]]
    peers: Mapping[str, Callable[[], Timer]] = {}
    peer_floors: Mapping[str, float] = {}


class Result(NamedTuple):
    """The result of a comparison. Ratios are other times divided by this library's time, which is in milliseconds."""

    case: str
    quantity: str
    floor: float | None
    ratios: tuple[float, ...]  # of plain autodiff, one for each time that it was measured
    milliseconds: float
    same_program: bool
    peers: Mapping[str, float]
    peer_floors: Mapping[str, float] = {}

    @property
    def ratio(self) -> float:
        return median(self.ratios)

    @property
    def is_below(self) -> bool:
        return self.floor is not None and self.ratio < self.floor

    @property
    def peers_below(self) -> list[str]:
        return [name for name, ratio in self.peers.items() if ratio < self.peer_floors.get(name, 0.0)]


def measure(comparison: Comparison, effort: Effort) -> Result:
    case, quantity, floor, sides, _, peer_floors = comparison
    ours, theirs = sides()
    same = _check(comparison, ours, theirs)
    times = []

    def ratio() -> float:
        our_time, their_time = medians([ours] if same else [ours, theirs], effort) * (2 if same else 1)
        times.append(our_time)
        return their_time / our_time

    ratios = _ratios(ratio, floor)
    peers = _measure_peers(comparison, ours, effort)
    return Result(case, quantity, floor, ratios, 1e3 * median(times), same, peers, peer_floors)


def _ratios(ratio: Callable[[], float], floor: float | None) -> tuple[float, ...]:
    """The ratio; if it is below its floor, measured three more times."""
    first = ratio()
    return first, *(ratio() for _ in range(REPETITIONS if first < (floor or 0.0) else 0))


def _measure_peers(comparison: Comparison, ours: Run, effort: Effort) -> dict[str, float]:
    """The ratio of each library, whose programs do not take turns, because PyTorch is in a process of its own."""
    effort = Effort(effort.rounds, effort.seconds / 3)  # less time, because most of them have no floor

    def ratio(theirs: Timer) -> float:
        our_time, their_time = alone(ours)(effort), theirs(effort)
        return their_time / our_time

    return {
        name: median(_ratios(partial(ratio, prepare()), comparison.peer_floors.get(name)))
        for name, prepare in comparison.peers.items()
    }


def _check(comparison: Comparison, ours: Run, theirs: Run) -> bool:
    """Whether the two programs are identical. Raises ``DifferentResults`` if they compute different results."""
    if not (isinstance(ours, Program) and isinstance(theirs, Program)):
        return False
    # In a deep network some gradients are mostly rounding errors, on a GPU even more. In float64 they are not.
    if not (_agree(ours(), theirs()) or _agree(ours.in_float64(), theirs.in_float64())):
        raise DifferentResults(f"the two sides of {comparison.case}, {comparison.quantity}, differ")
    return ours.text == theirs.text


def _agree(ours: Any, theirs: Any) -> bool:
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    return all(_is_near(np.asarray(got, np.float64), np.asarray(want, np.float64)) for got, want in pairs)


def _to_float64(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64) if array.dtype == np.float32 else array


def _is_near(got: np.ndarray, want: np.ndarray) -> bool:
    return bool(np.max(np.abs(got - want)) <= 1e-2 * np.max(np.abs(want)))
