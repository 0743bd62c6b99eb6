"""Checks the gradient of the reference by differences, because all other checks compare with that gradient.

Along a direction ``v``, with ``φ(t) = ⟨dy, reference(x + t v)⟩`` in float64, the remainder ``|φ(t) − φ(0) − t φ'(0)|``
falls as t² if the gradient is right. It falls only as t if the gradient is wrong, for instance because of a stray
``stop_gradient``. It also falls as t at a kink, and near a singularity until t is small enough; `neighbourhood`
distinguishes those from a wrong gradient.
"""

import re
from typing import Any

import jax
import numpy as np

from jaxbn.testing.collector import Collector
from jaxbn.testing.cotangents import gaussian
from jaxbn.testing.neighbourhood import judge_near, tangents_by_reverse_mode, typical_size
from jaxbn.testing.oracle import Evaluator, float64_constant, to_float64
from jaxbn.testing.problem import Function
from jaxbn.testing.report import Failure
from jaxbn.testing.scoring import Scorer

STEPS = 2.0 ** -np.arange(6, 22, 2)


def check_reference(collector: Collector, scorer: Scorer, seed: int) -> None:
    """Checks one input at a time, so that the effect of a small input is not lost beside that of a large one."""
    problem, evaluator = collector.problem, scorer.evaluator
    arrays = [to_float64(array) for array in problem.arrays]
    for place, leaf in enumerate(problem.inputs):
        collector.progress(f"the reference's gradient with respect to {leaf.name}")
        orders = []
        for number, normal in enumerate(_opposite_directions(leaf.shape, seed)):
            dy = list(map(to_float64, gaussian(problem.outputs, seed, 5000 + number).arrays))
            direction = np.where(np.isfinite(arrays[place]), normal * typical_size(arrays[place]), 0.0)
            gradient = evaluator.exact(arrays, dy)[1][place]
            orders.append(_order_of_remainder(evaluator, arrays, place, direction, dy, gradient))
        if any(order < 1.5 for order in orders):
            _look_closer(collector, evaluator, arrays, place, min(orders), seed)
    collector.checked.append("Taylor expansion of the reference")


def _look_closer(
    collector: Collector, evaluator: Evaluator, arrays: list[np.ndarray], place: int, order: float, seed: int
) -> None:
    """Adds a failure if the gradient is wrong very near the arguments too, and reports entries that are undecided."""
    problem = collector.problem
    name = problem.inputs[place].name
    subject = f"the reference's own gradient with respect to `{name}`"
    reference = problem.flattened(problem.reference, float64_constant)
    with jax.enable_x64(True):
        try:
            jax.eval_shape(tangents_by_reverse_mode(reference), arrays, arrays)
        except Exception as error:  # anything that the pullback calls may raise, such as a callback
            why = f"its pullback cannot be transposed: {type(error).__name__}: {error}"
            collector.unchecked.append((subject, why))
            return
    verdict = judge_near(problem, evaluator, arrays, place, seed)
    of_outputs = f"of {verdict.outputs} entries of the output"
    if verdict.wrong and _rounds_inside(reference, arrays):
        why = "it rounds to a narrower dtype inside, so differences in float64 say nothing about it"
        collector.unchecked.append((subject, why))
    elif verdict.wrong:
        message = (
            f"{subject} is wrong, for {verdict.wrong} {of_outputs}: along a random direction the remainder of its "
            f"Taylor expansion falls with slope {order:.2f}, not 2. "
            "Does it use `stop_gradient`, or a wrong derivative rule?"
        )
        collector.failures.append(Failure("reference", message, name))
    if verdict.kinks:
        why = f"{verdict.kinks} {of_outputs} have a kink at these arguments, where the derivative is a convention"
        collector.unchecked.append((subject, why))
    if verdict.undecided:
        why = (
            f"{verdict.undecided} {of_outputs} change too fast near these arguments for differences, or are not finite"
        )
        collector.unchecked.append((subject, why))


def _rounds_inside(reference: Function, arrays: list[np.ndarray]) -> bool:
    """Whether the reference converts float64 arguments to a narrower dtype, which makes it a step function."""
    with jax.enable_x64(True):
        return re.search(r":(f32|f16|bf16)\[", str(jax.make_jaxpr(reference)(arrays))) is not None


def _opposite_directions(shape: tuple[int, ...], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two random directions with opposite signs in every entry, because a kink may be visible on one side only."""
    first, second = np.random.default_rng((seed, 6000)).standard_normal((2, *shape))
    return first, -np.copysign(second, first)


def _order_of_remainder(evaluator: Evaluator, arrays: Any, place: int, direction: Any, dy: Any, gradient: Any) -> float:
    """Returns the power of t by which the remainder falls, or 2 if rounding hides the remainder at all steps.

    This is the slope of the remainder over the step in a log-log plot.
    """

    def terms(step: float) -> np.ndarray:
        moved = [array + step * direction if other == place else array for other, array in enumerate(arrays)]
        outputs = evaluator.exact(moved, dy)[0]
        products = (d * np.where(np.isfinite(y), y, 0.0) for d, y in zip(dy, outputs, strict=True))
        return np.concatenate([np.ravel(product) for product in products])

    start = terms(0.0)
    derivative = float(np.sum(np.where(np.isfinite(gradient), gradient, 0.0) * direction))
    changes = np.array([np.sum(terms(step) - start) for step in STEPS])
    remainders = np.abs(changes - STEPS * derivative)
    noise = 1e-13 * float(np.sum(np.abs(start)) + np.sum(np.abs(np.concatenate([np.ravel(d) for d in dy]))))
    visible = np.isfinite(remainders) & (remainders > noise)
    pairs = [k for k in range(len(STEPS) - 1) if visible[k] and visible[k + 1]]
    if not pairs:
        return 2.0
    orders = np.log2(remainders[:-1] / remainders[1:])[pairs] / np.log2(STEPS[0] / STEPS[1])
    return float(np.max(orders[-2:]))
