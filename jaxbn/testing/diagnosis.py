"""Adds to each failure a guess at its cause, and Python code that reproduces it."""

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from jaxbn.testing.causes import CAUSES
from jaxbn.testing.evidence import Evidence
from jaxbn.testing.oracle import Evaluator, to_float64
from jaxbn.testing.precision import Trial
from jaxbn.testing.problem import Problem
from jaxbn.testing.report import Failure
from jaxbn.testing.reproduction import command, program


def explain(
    failures: Sequence[Failure], problem: Problem, evaluator: Evaluator, trials: Sequence[Trial], seed: int
) -> list[Failure]:
    wrong = {failure.argument for failure in failures if _is_of_plain_gradient(failure)}
    disagree = any(failure.check == "transpose" for failure in failures)
    explained = []
    for failure in failures:
        if _is_of_plain_gradient(failure):
            explained.append(_explain_gradient(failure, problem, evaluator, trials, seed))
            continue
        cause = failure.cause
        if failure.check == "directional derivative" and wrong:
            cause = None if disagree else "jvp and vjp agree with each other: the derivative itself is wrong"
        elif failure.transformation and failure.error is not None and failure.argument not in wrong:
            cause = f"only under {failure.transformation}: without it the gradient is right"
        explained.append(replace(failure, cause=cause, reproduce=command(failure, seed)))
    return explained


def _is_of_plain_gradient(failure: Failure) -> bool:
    return failure.check == "gradient" and not failure.transformation


def _explain_gradient(
    failure: Failure, problem: Problem, evaluator: Evaluator, trials: Sequence[Trial], seed: int
) -> Failure:
    place = [leaf.name for leaf in problem.inputs].index(str(failure.argument))
    trial = next(trial for trial in trials if trial.label == failure.cotangent)
    got = to_float64(evaluator.rule(*trial.vectors)[1][place])
    want = evaluator.exact(*trial.vectors)[1][place]
    evidence = Evidence(problem, evaluator, place, failure.budget or 0.0, seed)
    return replace(
        failure,
        cause=_cause(evidence),
        reproduce=program(failure, problem, str(trial.notes["python"]), seed),
        arrays=(got, want),
    )


def _cause(evidence: Evidence) -> str | None:
    if not evidence.is_informative:
        return None
    guesses = (guess(evidence) for guess in CAUSES)
    return next((guess for guess in guesses if guess is not None), None)


def cause_of_exception(message: str) -> str | None:
    """Guesses the cause from JAX's message, which gives the actual and the expected shape."""
    if message.startswith("Transpose rule (for reverse-mode differentiation)"):
        return "a tangent rule that is not linear in the tangents: reverse mode transposes it, which it cannot do here"
    shapes = [tuple(map(int, re.findall(r"\d+", text))) for text in re.findall(r"\w+\d+\[([\d,]*)\]", message)]
    if len(shapes) < 2 or shapes[0] == shapes[1]:
        return None
    got, want = shapes[:2]
    if len(got) == len(want) and all(a <= b for a, b in zip(got, want, strict=True)) and 1 not in got:
        axes = [axis for axis, (a, b) in enumerate(zip(got, want, strict=True)) if a < b]
        return f"a part is missing: {list(got)} lacks entries of {list(want)} along {axes}, such as rows left over"
    if _broadcasts_to(want, got):
        extra = len(got) - len(want)
        axes = [axis for axis in range(len(got)) if axis < extra or (want[axis - extra] == 1 < got[axis])]
        return f"a missing sum over a broadcast axis: {list(got)} must be summed over {axes} to become {list(want)}"
    if sorted(got) == sorted(want):
        return f"transposed: {list(got)} has the axes of {list(want)} in another order"
    return None


def _broadcasts_to(shape: tuple[int, ...], larger: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(shape, larger) == larger
    except ValueError:
        return False
