"""Collects what the checks find: failures, what was checked, and what could not be checked."""

import sys
import time
from collections.abc import Sequence
from typing import TextIO

import jax

from jaxbn.testing.precision import Trial, budget
from jaxbn.testing.problem import Leaf, Problem
from jaxbn.testing.report import Failure

SILENT_SECONDS = 2.0
"""A check that takes no longer than this shows no progress."""

SECONDS_BETWEEN_LINES = 0.2

IMPURE = (
    "the rule is not a pure function: it keeps something outside of its residuals, such as in a global, an attribute "
    "or a variable of an enclosing function; return it from the forward pass with the residuals"
)


class Progress:
    """Shows the current check on one line of stderr, if the checks take long."""

    def __init__(self, function: str, stream: TextIO | None = None) -> None:
        self._started, self._next, self._width = time.monotonic(), SILENT_SECONDS, 0
        self._function, self._stream = function, stream

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def __call__(self, step: str) -> None:
        if self.seconds > self._next:
            self._next = self.seconds + SECONDS_BETWEEN_LINES
            self._show(f"check_custom_vjp of {self._function}: {step} ({self.seconds:.0f} s)")

    def done(self) -> None:
        if self._width:
            self._show("")
            print("\r", end="", file=self._stream or sys.stderr, flush=True)

    def _show(self, line: str) -> None:
        line = line[:118]
        print(f"\r{line:{self._width}}", end="", file=self._stream or sys.stderr, flush=True)
        self._width = len(line)


class Collector:
    """Collects the contents of the report; ``requested`` are the transformations that the caller named."""

    def __init__(self, problem: Problem, progress: Progress, requested: frozenset[str]) -> None:
        self.problem, self.progress, self.requested = problem, progress, requested
        self.failures: list[Failure] = []
        self.checked: list[str] = []
        self.unchecked: list[tuple[str, str]] = []

    def transformation_raised(self, transformation: str, error: Exception) -> None:
        """Records an exception: a failure if a tracer leaked or the caller named the transformation."""
        why = f"{type(error).__name__}: {error}"
        if isinstance(error, jax.errors.UnexpectedTracerError):
            message = f"{transformation} raises {why.splitlines()[0]}"
            self.failures.append(Failure("purity", message, transformation=transformation, cause=IMPURE))
            return
        self.unchecked.append((transformation, why))
        if transformation in self.requested:
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
        kind: str = "cotangent",
    ) -> None:
        """Adds a failure for each leaf whose worst error in ``trials`` exceeds its budget.

        The budget is computed from ``trials`` and ``pooled`` together, and multiplied by ``slack``. ``kind`` says
        whether the leaves and the trials are cotangents or tangents.
        """
        for place, leaf in enumerate(leaves):
            scores = [trial.scores[place] for trial in (*trials, *pooled)]
            allowed = slack * budget(leaf, scores, size)
            worst = max(trials, key=lambda trial: trial.scores[place].error / (allowed or 1.0), default=None)
            if worst is None or worst.scores[place].error <= allowed:
                continue
            score = worst.scores[place]
            wrong = sum(trial.scores[place].error > allowed for trial in trials)
            under = f" under {transformation}" if transformation else ""
            self.failures.append(
                Failure(
                    check,
                    f"the {kind} of `{leaf.name}` is wrong{under} for {wrong} of {len(trials)} {kind}s, "
                    f"worst for {worst.label}",
                    argument=leaf.name,
                    output=worst.notes.get("output"),
                    cotangent=worst.label,
                    transformation=transformation,
                    index=score.index,
                    got=score.got,
                    want=score.want,
                    error=score.error,
                    budget=allowed,
                    cause=cause,
                )
            )
