"""Ratios of times, in one process: both sides compiled and warmed up, then timed in turn, A B A B, by their medians."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import jax
import numpy as np

Run = Callable[[], Any]
REPETITIONS = 3


class Effort(NamedTuple):
    """A measurement ends after so many rounds, or so many seconds and three rounds."""

    rounds: int
    seconds: float


class DifferentResults(Exception):
    """The two sides do not compute the same: their times say nothing."""


class Program:
    """A compiled function and its operands; a call waits for the result."""

    def __init__(self, function: Callable[..., Any], operands: tuple[Any, ...]) -> None:
        self.function = function
        self.compiled = jax.jit(function).lower(*operands).compile()
        self.operands = jax.device_put(operands)

    def __call__(self) -> Any:
        return jax.block_until_ready(self.compiled(*self.operands))

    def in_float64(self) -> Any:
        with jax.enable_x64(True):
            operands = jax.tree.map(_widened, jax.device_get(self.operands))
            return jax.device_get(jax.jit(self.function)(*operands))

    @property
    def text(self) -> str:
        """The optimised HLO without the names and places in the source that it was written with."""
        text = re.sub(r"HloModule [^\s,]+", "HloModule", self.compiled.as_text() or "")
        text = re.sub(r", metadata=\{[^}]*\}", "", text)
        text = re.sub(r"([(,] ?)[\w.\-]+: ", r"\1", text)  # Of parameters, in a computation's heading.
        # Tables of source files and frames, in some versions of XLA, stand before the first computation.
        text = re.sub(r"\n(FileNames|FunctionNames|FileLocations|StackFrames)\n(.+\n)*", "\n", text)
        names: dict[str, str] = {}
        return re.sub(r"%[\w.\-]+", lambda match: names.setdefault(match[0], f"%{len(names)}"), text)


class Comparison(NamedTuple):
    """What is to be measured: this library's side and plain autodiff's, and other libraries beside them."""

    case: str
    quantity: str
    floor: float | None
    sides: Callable[[], tuple[Run, Run]]
    peers: Mapping[str, Callable[[], Run]] = {}
    peer_floors: Mapping[str, float] = {}


class Result(NamedTuple):
    """What was measured; times in milliseconds, ratios over this library's time."""

    case: str
    quantity: str
    floor: float | None
    ratios: tuple[float, ...]  # plain autodiff's, as often as it was measured
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

    ratios = _confirmed(ratio, floor)
    peers = _measure_peers(comparison, ours, effort)
    return Result(case, quantity, floor, ratios, 1e3 * median(times), same, peers, peer_floors)


def _confirmed(ratio: Callable[[], float], floor: float | None) -> tuple[float, ...]:
    """A ratio, and if it is under its floor three more."""
    first = ratio()
    return first, *(ratio() for _ in range(REPETITIONS if first < (floor or 0.0) else 0))


def medians(runs: Sequence[Run], effort: Effort) -> list[float]:
    """The median time of each run in seconds, taken in turn."""
    for run in runs:
        run()
    rounds: list[list[float]] = []
    start = time.perf_counter()
    while len(rounds) < 3 or _goes_on(len(rounds), time.perf_counter() - start, effort):
        rounds.append([_time(run) for run in runs])
    return [median(times) for times in zip(*rounds, strict=True)]


def _goes_on(rounds: int, elapsed: float, effort: Effort) -> bool:
    # So many rounds of something very short are over before the machine has settled: a tenth of the time is taken.
    return elapsed < effort.seconds and (rounds < effort.rounds or elapsed < effort.seconds / 10)


def _time(run: Run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _measure_peers(comparison: Comparison, ours: Run, effort: Effort) -> dict[str, float]:
    """Each against this library, apart from the others: PyTorch's threads linger, and would slow who comes next."""
    effort = Effort(effort.rounds, effort.seconds / 3)  # Most have no floor.

    def ratio(theirs: Run) -> float:
        (our_time,), (their_time,) = medians([ours], effort), medians([theirs], effort)
        return their_time / our_time

    return {
        name: median(_confirmed(partial(ratio, prepare()), comparison.peer_floors.get(name)))
        for name, prepare in comparison.peers.items()
    }


def _check(comparison: Comparison, ours: Run, theirs: Run) -> bool:
    """Whether the two are the same program; raises where they do not compute the same."""
    if not (isinstance(ours, Program) and isinstance(theirs, Program)):
        return False
    # Of a deep network some gradients are mostly rounding, on a GPU more of them: in float64 they are not.
    if not (_alike(ours(), theirs()) or _alike(ours.in_float64(), theirs.in_float64())):
        raise DifferentResults(f"the two sides of {comparison.case}, {comparison.quantity}, differ")
    return ours.text == theirs.text


def _alike(ours: Any, theirs: Any) -> bool:
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    return all(_near(np.asarray(got, np.float64), np.asarray(want, np.float64)) for got, want in pairs)


def _widened(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64) if array.dtype == np.float32 else array


def _near(got: np.ndarray, want: np.ndarray) -> bool:
    return bool(np.max(np.abs(got - want)) <= 1e-2 * np.max(np.abs(want)))
