"""Checks the gradient against the truth for many cotangents, and that it is zero for zero, linear and deterministic."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxbn.testing.collector import Collector
from jaxbn.testing.cotangents import JACOBIAN, Cotangent, cotangents_of, gaussian, zero
from jaxbn.testing.oracle import to_float64
from jaxbn.testing.precision import Trial
from jaxbn.testing.problem import Leaf
from jaxbn.testing.report import Failure
from jaxbn.testing.scoring import Scorer


def check_gradients(
    collector: Collector, scorer: Scorer, values: Sequence[np.ndarray], families: Sequence[str], seed: int
) -> list[Trial]:
    """Compares the gradient with the truth for every chosen cotangent.

    ``values`` are the outputs. Returns the trials, so that later checks can pool them with their trials.
    """
    problem, rule = collector.problem, scorer.evaluator.rule
    trials = []
    for cotangent in cotangents_of(problem.outputs, values, families, seed):
        collector.progress(f"cotangent {cotangent.label}")
        got = rule(problem.arrays, cotangent.arrays)[1]
        notes = {"python": cotangent.python, "output": _only_output(cotangent, problem.outputs)}
        trials.append(scorer.trial(cotangent.label, got, problem.arrays, cotangent.arrays, **notes))
    if trials:
        collector.judge(trials, problem.inputs, size=problem.output_size)
        rows = sum(trial.label.startswith("one-hot") for trial in trials)
        complete = rows and rows == problem.output_size
        collector.checked.append(f"{len(trials)} cotangents" + (", the full Jacobian among them" if complete else ""))
        if rows and not complete:
            collector.unchecked.append(
                ("full Jacobian", f"the outputs have more than {JACOBIAN} entries; {rows} of its rows were checked")
            )
        _report_left_out_entries(collector, trials)
    return trials


def _only_output(cotangent: Cotangent, outputs: Sequence[Leaf]) -> str | None:
    """The name of the output whose cotangent is not zero, if there is only one."""
    used = [y.name for y, dy in zip(outputs, cotangent.arrays, strict=True) if np.any(np.asarray(dy))]
    return used[0] if len(used) == 1 else None


def _report_left_out_entries(collector: Collector, trials: Sequence[Trial]) -> None:
    """Reports the entries that could not be compared. Raises ``ValueError`` if there are no others."""
    inputs = collector.problem.inputs
    if any(leaf.size for leaf in inputs) and all(
        score.left_out == leaf.size for trial in trials for score, leaf in zip(trial.scores, inputs, strict=True)
    ):
        raise ValueError(
            "check_custom_vjp: the reference's own gradient is not finite anywhere, so nothing can be compared; "
            "choose other arguments"
        )
    for place, leaf in enumerate(inputs):
        left_out = max(trial.scores[place].left_out for trial in trials)
        if left_out:
            why = (
                f"{left_out} of {leaf.size} entries: the reference's own gradient is not finite there in {leaf.dtype}, "
                "or close to the largest number that it has"
            )
            collector.unchecked.append((f"part of the cotangent of `{leaf.name}`", why))


def check_zero(collector: Collector, scorer: Scorer) -> None:
    """Checks that a cotangent of zero gives a gradient of exactly zero."""
    problem = collector.problem
    cotangent = zero(problem.outputs)
    gradients = scorer.evaluator.rule(problem.arrays, cotangent.arrays)[1]
    autodiff = scorer.evaluator.autodiff(problem.arrays, cotangent.arrays)[1]
    for leaf, got, want in zip(problem.inputs, map(to_float64, gradients), autodiff, strict=True):
        wrong = (got != 0) & (want == 0)
        if np.any(wrong):
            index = tuple(int(indices[0]) for indices in np.nonzero(wrong))
            message = (
                f"if the outputs' cotangent is zero, the cotangent of `{leaf.name}` has {int(wrong.sum())} entries "
                "that are not zero"
            )
            collector.failures.append(
                Failure(
                    "zero",
                    message,
                    argument=leaf.name,
                    cotangent="zero",
                    index=index,
                    got=float(got[index]),
                    want=0.0,
                )
            )
    collector.checked.append("zero gives exactly zero")


def check_linearity(collector: Collector, scorer: Scorer, trials: Sequence[Trial], seed: int) -> None:
    """Checks ``vjp(u + v) = vjp(u) + vjp(v)``, and ``vjp(2ᵏ u) = 2ᵏ vjp(u)`` for very large and very small ``2ᵏ``."""
    problem, evaluator = collector.problem, scorer.evaluator

    def gradient(dy: Sequence[jax.Array]) -> list[np.ndarray]:
        return list(map(to_float64, evaluator.rule(problem.arrays, dy)[1]))

    u, v = (_rounded(gaussian(problem.outputs, seed, number).arrays) for number in (1000, 1001))
    u_plus_v = [jnp.asarray(to_float64(a) + to_float64(b), a.dtype) for a, b in zip(u, v, strict=True)]
    of_u, of_v, of_sum = map(gradient, (u, v, u_plus_v))
    with np.errstate(invalid="ignore"):  # where autodiff overflows
        sum_of_both = [a + b for a, b in zip(of_u, of_v, strict=True)]
    pool = [*trials, scorer.trial("", of_sum, problem.arrays, u_plus_v)]
    size = problem.output_size

    def judge(label: str, dy: Any, got: Any, want: Any, autodiff: Any, cause: str | None) -> None:
        want = [np.where(np.isfinite(array), array, np.nan) for array in want]
        trial = scorer.trial_against(label, got, want, autodiff, problem.arrays, dy)
        collector.judge([trial], problem.inputs, pool, size=size, check="linearity", slack=4.0, cause=cause)

    judge("u + v", u_plus_v, of_sum, sum_of_both, sum_of_both, None)
    for exponent in _exponents([*problem.inputs, *problem.outputs]):
        dy = [jnp.asarray(np.ldexp(to_float64(array), exponent), array.dtype) for array in u]
        want = [np.ldexp(array, exponent) for array in of_u]
        autodiff = evaluator.autodiff(problem.arrays, dy)[1]
        cause = (
            f"the rule is not linear in dy: this dy is 2^{exponent} times another one. Is dy clipped or divided by its "
            "size, or does something overflow?"
        )
        judge(f"2^{exponent} u", dy, gradient(dy), want, autodiff, cause)
    collector.checked.append("linearity")


def _exponents(leaves: Sequence[Leaf]) -> tuple[int, int]:
    """Plus and minus half of the narrowest dtype's largest exponent. The other half leaves room for the Jacobian."""
    half = min(int(jnp.finfo(leaf.dtype).maxexp) for leaf in leaves) // 2
    return half, -half


def _rounded(arrays: Sequence[jax.Array]) -> list[jax.Array]:
    """Rounds to multiples of 1/16 between −4 and 4, whose sums every dtype represents exactly."""
    return [jnp.asarray(np.round(np.clip(to_float64(a), -4, 4) * 16) / 16, a.dtype) for a in arrays]


def check_determinism(collector: Collector, scorer: Scorer, seed: int) -> None:
    """Checks that two runs agree bit for bit."""
    problem = collector.problem
    dy = gaussian(problem.outputs, seed, 0).arrays
    runs = [jax.tree.map(np.asarray, scorer.evaluator.rule(problem.arrays, dy)) for _ in range(2)]
    for name, first, second in zip(problem.result_names, *map(jax.tree.leaves, runs), strict=True):
        if first.tobytes() != second.tobytes():
            message = f"two runs on the same arrays give different values of {name}"
            collector.failures.append(Failure("determinism", message))
    collector.checked.append("two runs agree to the bit")
