"""A failure explained: a guess at its cause, and Python that shows it."""

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from jaxbn.testing.causes import CAUSES
from jaxbn.testing.evidence import Evidence
from jaxbn.testing.gradients import Truth
from jaxbn.testing.oracle import doubled
from jaxbn.testing.precision import Trial
from jaxbn.testing.problem import Problem
from jaxbn.testing.report import Failure
from jaxbn.testing.reproduction import program


def explained(
    failures: Sequence[Failure], problem: Problem, truth: Truth, trials: Sequence[Trial], seed: int
) -> list[Failure]:
    """The failures with what can be said of them; those of the gradient itself come first."""
    wrong = {failure.argument for failure in failures if failure.check == "gradient" and not failure.transformation}
    return [_explained(failure, problem, truth, trials, seed, wrong) for failure in failures]


def _explained(
    failure: Failure, problem: Problem, truth: Truth, trials: Sequence[Trial], seed: int, wrong: set[str | None]
) -> Failure:
    names = [leaf.name for leaf in problem.inputs]
    if failure.check != "gradient" or failure.transformation:
        cause = failure.cause
        if failure.transformation and failure.error is not None and failure.argument not in wrong:
            cause = f"only under {failure.transformation}: without it the gradient is right"
        return replace(failure, cause=cause, reproduce=program(failure, problem, None, seed))
    place = names.index(str(failure.argument))
    trial = next(trial for trial in trials if trial.label == failure.cotangent)
    got = doubled(truth.sides.rule(*trial.vectors)[1][place])
    want = truth.sides.exact(*trial.vectors)[1][place]
    evidence = Evidence(problem, truth.sides, place, failure.budget or 0.0, seed)
    return replace(
        failure,
        cause=cause_of(evidence),
        reproduce=program(failure, problem, str(trial.notes["python"]), seed),
        arrays=(got, want),
    )


def cause_of(evidence: Evidence) -> str | None:
    """The first guess that fits."""
    if not evidence.informative:
        return None
    for cause in CAUSES:
        guess = cause(evidence)
        if guess is not None:
            return guess
    return None


def cause_of_exception(message: str) -> str | None:
    """A backward pass that raises says so in JAX's words: which shape came, and which was wanted."""
    shapes = [tuple(map(int, re.findall(r"\d+", text))) for text in re.findall(r"\w+\d+\[([\d,]*)\]", message)]
    if len(shapes) < 2 or shapes[0] == shapes[1]:
        return None
    got, want = shapes[:2]
    if len(got) == len(want) and all(a <= b for a, b in zip(got, want, strict=True)) and 1 not in got:
        axes = [axis for axis, (a, b) in enumerate(zip(got, want, strict=True)) if a < b]
        return f"a part is missing: {list(got)} lacks entries of {list(want)} along {axes}, such as rows left over"
    if len(got) > len(want) or any(a > b == 1 for a, b in zip(got, want, strict=False)):
        try:
            broadcast = np.broadcast_shapes(got, want) == got
        except ValueError:
            broadcast = False
        if broadcast:
            extra = len(got) - len(want)
            axes = [axis for axis in range(len(got)) if axis < extra or (want[axis - extra] == 1 < got[axis])]
            return (
                f"a missing sum over a broadcast axis: {list(got)} is to be summed over {axes} to become {list(want)}"
            )
    if sorted(got) == sorted(want):
        return f"transposed: {list(got)} has the axes of {list(want)} in another order"
    return None
