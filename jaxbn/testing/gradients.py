"""The gradients themselves: every cotangent against the truth, zero, linearity, and that two runs agree."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxbn.testing.collector import Collector
from jaxbn.testing.cotangents import JACOBIAN, Cotangent, cotangents_of, gaussian, size_of, zero
from jaxbn.testing.oracle import Sides, doubled
from jaxbn.testing.precision import FLOAT64, Trial, in_float64, score
from jaxbn.testing.problem import Leaf
from jaxbn.testing.report import Failure


class Truth:
    """Scores cotangents of the inputs, or whatever else has the ``leaves``' types."""

    def __init__(self, sides: Sides, leaves: Sequence[Leaf]) -> None:
        self.sides, self.leaves = sides, leaves

    def of(self, *vectors: Sequence[Any]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """What is wanted, and what autodiff in the same dtypes gives for it."""
        want = _gradients(self.sides.exact(*vectors))
        autodiff = _gradients(self.sides.plain(*vectors))
        if any(leaf.dtype == FLOAT64 for leaf in self.leaves):
            narrow, exact = map(_gradients, self.sides.rounding(*vectors))
            for place, leaf in enumerate(self.leaves):
                if leaf.dtype == FLOAT64:
                    autodiff[place] = in_float64(want[place], narrow[place], exact[place])
        return want, autodiff

    def trial(self, label: str, got: Sequence[Any], *vectors: Sequence[Any], **notes: Any) -> Trial:
        """``got`` scored against the truth."""
        return self.scored(label, got, *self.of(*vectors), *vectors, **notes)

    def scored(
        self,
        label: str,
        got: Sequence[Any],
        want: Sequence[np.ndarray],
        autodiff: Sequence[np.ndarray],
        *vectors: Sequence[Any],
        **notes: Any,
    ) -> Trial:
        """``got`` against what is known already; the last of ``vectors`` are what errors are measured by."""
        unit = max(size_of(vectors[-1]), float(np.finfo(np.float64).tiny))
        scores = [
            score(leaf, doubled(g), w, a, unit) for leaf, g, w, a in zip(self.leaves, got, want, autodiff, strict=True)
        ]
        return Trial(label, vectors, scores, notes)


def _gradients(result: Any) -> list[np.ndarray]:
    return result[1] if isinstance(result, tuple) else result


def check_gradients(
    collector: Collector, truth: Truth, values: Sequence[np.ndarray], families: Sequence[str], seed: int
) -> list[Trial]:
    """Every family but zero and linearity; returns the trials, whose errors others are pooled with."""
    problem, rule = collector.problem, truth.sides.rule
    trials = []
    for cotangent in cotangents_of(problem.outputs, values, families, seed):
        collector.progress(f"cotangent {cotangent.label}")
        got = rule(problem.arrays, cotangent.arrays)[1]
        output = _only_output(cotangent, problem.outputs)
        trials.append(
            truth.trial(cotangent.label, got, problem.arrays, cotangent.arrays, python=cotangent.python, output=output)
        )
    if trials:
        collector.judge(trials, problem.inputs, size=_size(problem.outputs))
        rows = sum(trial.label.startswith("one-hot") for trial in trials)
        whole = rows and rows == sum(y.size for y in problem.outputs)
        collector.checked.append(f"{len(trials)} cotangents" + (", the full Jacobian among them" if whole else ""))
        if rows and not whole:
            collector.unchecked.append(
                ("full Jacobian", f"the outputs have more than {JACOBIAN} entries; {rows} of its rows were checked")
            )
        _note_what_is_left_out(collector, trials)
    return trials


def _only_output(cotangent: Cotangent, outputs: Sequence[Leaf]) -> str | None:
    used = [y.name for y, dy in zip(outputs, cotangent.arrays, strict=True) if np.any(np.asarray(dy))]
    return used[0] if len(used) == 1 else None


def _note_what_is_left_out(collector: Collector, trials: Sequence[Trial]) -> None:
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


def check_zero(collector: Collector, truth: Truth) -> None:
    """A cotangent of zero gives exactly zero."""
    problem = collector.problem
    cotangent = zero(problem.outputs)
    gradients = truth.sides.rule(problem.arrays, cotangent.arrays)[1]
    plain = truth.sides.plain(problem.arrays, cotangent.arrays)[1]
    for leaf, got, autodiff in zip(problem.inputs, map(doubled, gradients), plain, strict=True):
        wrong = (got != 0) & (autodiff == 0)
        if np.any(wrong):
            index = tuple(int(each[0]) for each in np.nonzero(wrong))
            message = f"a cotangent of zero gives `{leaf.name}` one that is not zero in {int(wrong.sum())} entries"
            collector.failures.append(
                Failure("zero", message, leaf.name, None, "zero", None, index, float(got[index]), 0.0)
            )
    collector.checked.append("zero gives exactly zero")


def check_linearity(collector: Collector, truth: Truth, trials: Sequence[Trial], seed: int) -> None:
    """``vjp(u + v) = vjp(u) + vjp(v)``, and ``vjp(2ᵏ u) = 2ᵏ vjp(u)`` far beyond the size that cotangents have."""
    problem, rule = collector.problem, truth.sides.rule
    u, v = (_coarse(gaussian(problem.outputs, seed, number).arrays) for number in (1000, 1001))
    both = [_like(doubled(a) + doubled(b), a) for a, b in zip(u, v, strict=True)]
    of_u, of_v, of_both = ([doubled(each) for each in rule(problem.arrays, dy)[1]] for dy in (u, v, both))
    with np.errstate(invalid="ignore"):  # where autodiff overflows
        wanted = [a + b for a, b in zip(of_u, of_v, strict=True)]
    pool = [*trials, truth.trial("", of_both, problem.arrays, both)]
    size = _size(problem.outputs)

    def judge(label: str, dy: Any, got: Any, want: Any, autodiff: Any, cause: str | None) -> None:
        want = [np.where(np.isfinite(each), each, np.nan) for each in want]
        trial = truth.scored(label, got, want, autodiff, problem.arrays, dy)
        collector.judge([trial], problem.inputs, pool, size=size, check="linearity", slack=4.0, cause=cause)

    judge("u + v", both, of_both, wanted, wanted, None)
    for exponent in _exponents([*problem.inputs, *problem.outputs]):
        dy = [_like(np.ldexp(doubled(each), exponent), each) for each in u]
        got = list(map(doubled, rule(problem.arrays, dy)[1]))
        autodiff = truth.sides.plain(problem.arrays, dy)[1]
        cause = (
            f"the rule is not linear in dy, which is 2^{exponent} times that of another call here: is it clipped, "
            "divided by its size, or does something overflow?"
        )
        judge(f"2^{exponent} u", dy, got, [np.ldexp(each, exponent) for each in of_u], autodiff, cause)
    collector.checked.append("linearity")


def _exponents(leaves: Sequence[Leaf]) -> tuple[int, int]:
    """Half of the range of the narrowest dtype, so that a Jacobian of ordinary size has room beside it."""
    half = min(int(jnp.finfo(leaf.dtype).maxexp) for leaf in leaves) // 2
    return half, -half


def _coarse(arrays: Sequence[jax.Array]) -> list[jax.Array]:
    """To sixteenths, so that every dtype holds the sum of two."""
    return [_like(np.round(np.clip(doubled(array), -4, 4) * 16) / 16, array) for array in arrays]


def check_determinism(collector: Collector, truth: Truth, seed: int) -> None:
    """Two runs agree bit for bit."""
    problem = collector.problem
    dy = gaussian(problem.outputs, seed, 0).arrays
    runs = [jax.tree.map(np.asarray, truth.sides.rule(problem.arrays, dy)) for _ in range(2)]
    names = [*(y.name for y in problem.outputs), *(f"the cotangent of `{leaf.name}`" for leaf in problem.inputs)]
    for name, first, second in zip(names, *map(jax.tree.leaves, runs), strict=True):
        if first.tobytes() != second.tobytes():
            collector.failures.append(Failure("determinism", f"two runs on the same arrays give two {name}"))
    collector.checked.append("two runs agree to the bit")


def _size(outputs: Sequence[Leaf]) -> int:
    return sum(y.size for y in outputs)


def _like(array: np.ndarray, other: jax.Array) -> jax.Array:
    return jnp.asarray(array, other.dtype)
