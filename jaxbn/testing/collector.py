"""What the checks hand in: failures, what was looked at, and what could not be."""

import sys
import time
from collections.abc import Sequence
from typing import TextIO

import jax

from jaxbn.testing.precision import Trial, budget
from jaxbn.testing.problem import Leaf, Problem
from jaxbn.testing.report import Failure

PATIENCE = 2.0  # seconds without a word
PAUSE = 0.2  # seconds between two

IMPURE = (
    "the rule is not a pure function: it keeps something outside of its residuals, such as in a global, an attribute "
    "or in a variable of the function around it; return it from the forward pass with the residuals"
)


class Progress:
    """One line on stderr that says what is being checked, when it takes long."""

    def __init__(self, function: str, stream: TextIO | None = None) -> None:
        self.started, self._shown, self._next = time.monotonic(), 0, PATIENCE
        self._function, self._stream = function, stream

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def __call__(self, step: str) -> None:
        if self.seconds > self._next:
            self._next = self.seconds + PAUSE
            self._show(f"check_custom_vjp of {self._function}: {step} ({self.seconds:.0f} s)")

    def done(self) -> None:
        if self._shown:
            self._show("")
            print("\r", end="", file=self._stream or sys.stderr, flush=True)

    def _show(self, line: str) -> None:
        line = line[:118]
        print(f"\r{line:{self._shown}}", end="", file=self._stream or sys.stderr, flush=True)
        self._shown = len(line)


class Collector:
    """The report as it grows."""

    def __init__(self, problem: Problem, progress: Progress, named: frozenset[str]) -> None:
        self.problem, self.progress, self._named = problem, progress, named
        self.failures: list[Failure] = []
        self.checked: list[str] = []
        self.unchecked: list[tuple[str, str]] = []

    def asked_for(self, transformation: str) -> bool:
        """Whether the caller gave this transformation's name."""
        return transformation in self._named

    def raised(self, transformation: str, error: Exception) -> None:
        """A traced value that leaked is a mistake. Else it fails only if the caller asked for it by its name."""
        why = f"{type(error).__name__}: {error}"
        if isinstance(error, jax.errors.UnexpectedTracerError):
            message = f"{transformation} raises {why.splitlines()[0]}"
            self.failures.append(Failure("purity", message, transformation=transformation, cause=IMPURE))
            return
        self.unchecked.append((transformation, why))
        if self.asked_for(transformation):
            message = f"{transformation} was asked for and is not supported: {why}"
            self.failures.append(Failure("transformation", message, transformation=transformation))

    def judge(
        self,
        trials: Sequence[Trial],
        leaves: Sequence[Leaf],
        pooled: Sequence[Trial] = (),
        *,
        size: int,
        check: str = "gradient",
        transformation: str | None = None,
        slack: float = 1.0,
        cause: str | None = None,
    ) -> list[float]:
        """Fails each leaf whose worst error exceeds its budget, which ``pooled`` trials count towards as well."""
        budgets = []
        for place, leaf in enumerate(leaves):
            pool = [trial.scores[place] for trial in (*trials, *pooled)]
            allowed = slack * budget(leaf, pool, size)
            budgets.append(allowed)
            worst = max(trials, key=lambda trial: trial.scores[place].error / (allowed or 1.0), default=None)
            if worst is not None and worst.scores[place].error > allowed:
                self.failures.append(_failure(check, leaf, worst, place, allowed, trials, transformation, cause))
        return budgets


def _failure(
    check: str,
    leaf: Leaf,
    worst: Trial,
    place: int,
    allowed: float,
    trials: Sequence[Trial],
    transformation: str | None,
    cause: str | None,
) -> Failure:
    found = worst.scores[place]
    wrong = sum(trial.scores[place].error > allowed for trial in trials)
    under = f" under {transformation}" if transformation else ""
    message = f"the cotangent of `{leaf.name}` is wrong{under} for {wrong} of {len(trials)} cotangents"
    return Failure(
        check,
        f"{message}, worst for {worst.label}",
        argument=leaf.name,
        output=worst.notes.get("output"),
        cotangent=worst.label,
        transformation=transformation,
        index=found.index,
        got=found.got,
        want=found.want,
        error=found.error,
        budget=allowed,
        cause=cause,
    )
