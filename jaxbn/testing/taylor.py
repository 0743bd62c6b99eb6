"""Whether the reference's own gradient is right: no comparison with the reference can tell, but differences can.

Along a direction ``v`` the remainder ``|φ(t) − φ(0) − t φ'(0)|``, with ``φ(t) = ⟨dy, reference(x + t v)⟩`` in float64,
falls as t² where the gradient is right and as t where it is not, as with a stray ``stop_gradient``. It also falls as t
at a kink, and near a singularity until t is small enough. `neighbourhood` tells both from a wrong gradient.
"""

import re
from typing import Any

import jax
import numpy as np

from jaxbn.testing.collector import Collector
from jaxbn.testing.cotangents import gaussian
from jaxbn.testing.gradients import Truth
from jaxbn.testing.neighbourhood import judge_near, tangents_by_reverse_mode, typical_size
from jaxbn.testing.oracle import double_constant, doubled
from jaxbn.testing.problem import Function
from jaxbn.testing.report import Failure

STEPS = 2.0 ** -np.arange(6, 22, 2)


def check_reference(collector: Collector, truth: Truth, seed: int) -> None:
    """One direction in one input at a time, so that a small input is not lost beside a large one."""
    problem = collector.problem
    arrays = [doubled(array) for array in problem.arrays]
    for place, leaf in enumerate(problem.inputs):
        collector.progress(f"the reference's gradient with respect to {leaf.name}")
        slopes = []
        for number, normal in enumerate(_opposite_directions(leaf.shape, seed)):
            dy = list(map(doubled, gaussian(problem.outputs, seed, 5000 + number).arrays))
            direction = np.where(np.isfinite(arrays[place]), normal * typical_size(arrays[place]), 0.0)
            gradient = truth.sides.exact(arrays, dy)[1][place]
            slopes.append(_slope(truth, arrays, place, direction, dy, gradient))
        if any(slope < 1.5 for slope in slopes):
            _look_closer(collector, truth, arrays, place, min(slopes), seed)
    collector.checked.append("Taylor expansion of the reference")


def _look_closer(
    collector: Collector, truth: Truth, arrays: list[np.ndarray], place: int, slope: float, seed: int
) -> None:
    """A failure if the gradient is wrong very near the arguments too; a note for what differences cannot tell."""
    problem = collector.problem
    name = problem.inputs[place].name
    what = f"the reference's own gradient with respect to `{name}`"
    view = problem.view(problem.reference, double_constant)
    with jax.enable_x64(True):
        try:
            jax.eval_shape(tangents_by_reverse_mode(view), arrays, arrays)
        except Exception as error:  # from whatever the pullback calls, such as a callback
            why = f"its pullback cannot be transposed: {type(error).__name__}: {error}"
            collector.unchecked.append((what, why))
            return
    verdict = judge_near(problem, truth, arrays, place, seed)
    outputs = f"of {verdict.outputs} entries of the output"
    if verdict.wrong and _rounds_inside(view, arrays):
        why = "it rounds to a narrower dtype inside, so differences in float64 tell nothing of it"
        collector.unchecked.append((what, why))
    elif verdict.wrong:
        message = (
            f"{what} is wrong, for {verdict.wrong} {outputs}: along a random direction the remainder of its Taylor "
            f"expansion falls with slope {slope:.2f}, not 2. "
            "Is there a `stop_gradient` in it, or a rule of its own?"
        )
        collector.failures.append(Failure("reference", message, name))
    if verdict.kinks:
        why = f"{verdict.kinks} {outputs} have a kink at these arguments, where the derivative is a convention"
        collector.unchecked.append((what, why))
    if verdict.unsettled:
        why = f"{verdict.unsettled} {outputs} change too fast near these arguments for differences, or are not finite"
        collector.unchecked.append((what, why))


def _rounds_inside(view: Function, arrays: list[np.ndarray]) -> bool:
    """Whether the reference has a narrower dtype inside when its arguments are float64, so that it goes in steps."""
    with jax.enable_x64(True):
        return re.search(r":(f32|f16|bf16)\[", str(jax.make_jaxpr(view)(arrays))) is not None


def _opposite_directions(shape: tuple[int, ...], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two random directions in which each entry has opposite signs: on one side alone a kink may not be seen."""
    first, second = np.random.default_rng((seed, 6000)).standard_normal((2, *shape))
    return first, -np.copysign(second, first)


def _slope(truth: Truth, arrays: Any, place: int, direction: Any, dy: Any, gradient: Any) -> float:
    """That of the remainder's logarithm in that of the step, where rounding does not hide it; 2 if it hides all."""

    def terms(step: float) -> np.ndarray:
        moved = [array + step * direction if other == place else array for other, array in enumerate(arrays)]
        products = (
            d * np.where(np.isfinite(y), y, 0.0) for d, y in zip(dy, truth.sides.exact(moved, dy)[0], strict=True)
        )
        return np.concatenate([np.ravel(product) for product in products])

    start = terms(0.0)
    derivative = float(np.sum(np.where(np.isfinite(gradient), gradient, 0.0) * direction))
    changes = np.array([np.sum(terms(step) - start) for step in STEPS])
    remainders = np.abs(changes - STEPS * derivative)
    noise = 1e-13 * float(np.sum(np.abs(start)) + np.sum(np.abs(np.concatenate([np.ravel(d) for d in dy]))))
    seen = np.isfinite(remainders) & (remainders > noise)
    pairs = [k for k in range(len(STEPS) - 1) if seen[k] and seen[k + 1]]
    if not pairs:
        return 2.0
    rates = np.log2(remainders[:-1] / remainders[1:])[pairs] / np.log2(STEPS[0] / STEPS[1])
    return float(np.max(rates[-2:]))
