"""Median times of programs that take turns.

This module needs no JAX, so that PyTorch's process can time its programs in the same way.
"""

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, NamedTuple

Run = Callable[[], Any]
"""Runs a program once and waits for its result."""


class Effort(NamedTuple):
    """A measurement ends after this many rounds or this many seconds, but not before the third round."""

    rounds: int
    seconds: float


Timer = Callable[[Effort], float]
"""Runs a program for an effort and returns the median time in seconds."""


def alone(run: Run) -> Timer:
    return lambda effort: medians([run], effort)[0]


def medians(runs: Sequence[Run], effort: Effort) -> list[float]:
    """The median time of each run in seconds. The runs take turns."""
    for run in runs:
        run()
    rounds: list[list[float]] = []
    start = time.perf_counter()
    while len(rounds) < 3 or _continues(len(rounds), time.perf_counter() - start, effort):
        rounds.append([_time(run) for run in runs])
    return [median(times) for times in zip(*rounds, strict=True)]


def _continues(rounds: int, elapsed: float, effort: Effort) -> bool:
    # A short program would finish all rounds before the machine runs at a steady speed. So at least a tenth of the time
    # is used.
    return elapsed < effort.seconds and (rounds < effort.rounds or elapsed < effort.seconds / 10)


def _time(run: Run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
