"""Compares forward mode with reverse mode after a failure, to find out which of the two rules is wrong.

With the Jacobian J, the `jvp` computes ``J dx`` and the `vjp` computes ``Jᵀ dy``, so that for all vectors

    ⟨dy, J dx⟩ = ⟨Jᵀ dy, dx⟩

If the two sides differ, one of the rules is wrong, and the reference shows which. If they agree with each other but not
with the reference, the two rules make the same mistake. JAX transposes the rule of a `jax.custom_jvp` itself. The sides
can still differ if the rule is not linear in the tangents, or calls a function with a custom transpose.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxbn.testing.collector import Collector
from jaxbn.testing.cotangents import gaussian
from jaxbn.testing.oracle import to_float64
from jaxbn.testing.precision import Score, budget, compare
from jaxbn.testing.problem import Leaf, Problem
from jaxbn.testing.report import Failure
from jaxbn.testing.scoring import Scorer

PAIRS = 4
"""The number of pairs of a tangent and a cotangent that are tried for each argument."""

SAME_MISTAKE = 0.05
"""Two mistakes count as the same if they differ by less than this fraction of their size."""

NOT_LINEAR = "the jvp is not linear in the tangents: twice the tangent does not give twice the result"


class Products(NamedTuple):
    """``⟨dy, J dx⟩``, or ``⟨Jᵀ dy, dx⟩``, for several pairs of vectors."""

    got: np.ndarray
    want: np.ndarray
    autodiff: np.ndarray

    def score(self, leaf: Leaf) -> Score:
        return compare(leaf, *self, 1.0)


def check_transposition(collector: Collector, pullbacks: Scorer, jvps: Scorer, seed: int) -> None:
    """Adds a failure for each argument whose tangent and cotangent disagree.

    ``pullbacks`` and ``jvps`` evaluate the two modes. This is needed only if one of them has failed: if both are right,
    they agree up to rounding.
    """
    problem = collector.problem
    cause = None if _is_linear(problem, jvps, seed) else NOT_LINEAR
    for place, leaf in enumerate(problem.inputs):
        collector.progress(f"jvp and vjp of {leaf.name}")
        forward, reverse = _products(problem, pullbacks, jvps, place, seed)
        scores = [forward.score(leaf), reverse.score(leaf)]
        allowed = budget(leaf, scores, problem.input_size + problem.output_size)
        mistake = max(score.error for score in scores)
        gap = np.abs(forward.got - reverse.got)
        if mistake <= allowed or np.max(gap) <= max(allowed, SAME_MISTAKE * mistake):
            continue
        worst = int(np.argmax(gap))
        wrong = [name for name, score in zip(("jvp", "vjp"), scores, strict=True) if score.error > allowed]
        collector.failures.append(
            Failure(
                "transpose",
                f"the jvp for a tangent of `{leaf.name}` is not the transpose of the vjp: ⟨dy, J dx⟩ is "
                f"{forward.got[worst]:.6g} and ⟨Jᵀ dy, dx⟩ is {reverse.got[worst]:.6g}, so that at least one of "
                f"the two rules is wrong; the reference gives {forward.want[worst]:.6g}",
                argument=leaf.name,
                transformation="jvp",
                cause=cause or _which(wrong),
            )
        )


def _which(wrong: Sequence[str]) -> str:
    if len(wrong) == 2:
        return "both rules differ from the reference, and from each other"
    (other,) = {"jvp", "vjp"} - set(wrong)
    return f"the {wrong[0]} is wrong: the {other} agrees with the reference"


def _products(problem: Problem, pullbacks: Scorer, jvps: Scorer, place: int, seed: int) -> tuple[Products, Products]:
    """Returns both sides of the identity, for tangents of one input alone."""
    forward, reverse = [], []
    for number in range(PAIRS):
        normal = gaussian(problem.inputs, seed, 9000 + number).arrays
        dx = [vector if other == place else jnp.zeros_like(vector) for other, vector in enumerate(normal)]
        dy = gaussian(problem.outputs, seed, 9500 + number).arrays
        tangents = [jvps.evaluator.rule(problem.arrays, dx), *jvps.expected(problem.arrays, dx)]
        cotangents = [pullbacks.evaluator.rule(problem.arrays, dy)[1], *pullbacks.expected(problem.arrays, dy)]
        forward.append([_inner(dy, each) for each in tangents])
        reverse.append([_inner(dx, each) for each in cotangents])
    return Products(*np.transpose(forward)), Products(*np.transpose(reverse))


def _inner(left: Sequence[Any], right: Sequence[Any]) -> float:
    return float(sum(np.sum(to_float64(a) * to_float64(b)) for a, b in zip(left, right, strict=True)))


def _is_linear(problem: Problem, jvps: Scorer, seed: int) -> bool:
    """Whether twice the tangent gives twice the result."""
    dx = gaussian(problem.inputs, seed, 9000).arrays
    once, twice = (
        np.concatenate([np.ravel(to_float64(y)) for y in jvps.evaluator.rule(problem.arrays, tangent)])
        for tangent in (dx, [2 * each for each in dx])
    )
    difference = np.abs(2 * once - twice)
    return not np.any(difference > SAME_MISTAKE * np.max(np.abs(twice), initial=0.0))
