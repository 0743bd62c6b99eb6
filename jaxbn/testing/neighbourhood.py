"""Decides whether the reference's gradient is right at a point where ordinary differences do not converge.

At a kink the slopes on the two sides differ. Near a singularity a step of ordinary size leaves the region in which the
function is smooth. But at points very near the arguments, and for even smaller steps, a function is smooth in practice.
So the gradient is compared with differences at several such points, for each output entry separately, and the gradient
at the arguments is compared with the gradients at those points:

- differences converge to another value than the gradient gives: the reference is wrong;
- the gradients nearby agree with each other, but not with the one at the arguments: the reference is wrong as well;
- the gradients nearby differ from each other: there is a kink, and no derivative to compare with;
- differences do not converge, or something is not finite: this cannot be decided.

The factors below leave a margin: differences of a smooth function in float64 agree to 1e-5 or better, and a gradient
that lacks one of its terms is off by far more than that.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxbn.testing.oracle import Evaluator
from jaxbn.testing.problem import Function, Problem

POINTS = 12
"""The number of points near the arguments. If there were few, all could lie on one side of a kink."""

SCALES = ((2.0**-8, 2.0**-9), (2.0**-20, 2.0**-9), (2.0**-33, 2.0**-4))
"""Pairs of two factors: a point's distance from the arguments, and the longest step of the differences at that point.

The distance is relative to the size of each entry, the step is relative to the distance. Long steps show small terms
beside large ones, short steps stay away from singularities.
"""

CLOSEST = 2.0**-44
"""The distance at which gradients are compared with the gradient at the arguments."""

DENSITIES = (1.0, 0.5, 0.25, 0.1)
"""Fractions of the entries that move. If few move, an entry near a singularity often stays where it is."""

CONVERGED = 1e-3
"""Differences have converged if they agree to this relative error."""


class Verdict(NamedTuple):
    """The numbers of output entries that are wrong, have a kink or cannot be decided. The others are right."""

    wrong: int
    kinks: int
    undecided: int
    outputs: int


def tangents_by_reverse_mode(function: Function) -> Callable[..., Any]:
    """The Jacobian times a vector, by transposing the pullback, which is linear.

    Forward mode would test another derivative rule, and a reference with a `jax.custom_vjp` does not support it.
    """

    def pushed(arrays: Sequence[Any], direction: Sequence[Any]) -> list[Any]:
        outputs, vjp = jax.vjp(function, list(arrays))

        def along(dy: Sequence[Any]) -> Any:
            return sum((jnp.vdot(g, v) for g, v in zip(vjp(dy)[0], direction, strict=True)), jnp.zeros(()))

        return jax.grad(along)([jnp.zeros_like(y) for y in outputs])

    return pushed


def typical_size(array: np.ndarray) -> float:
    """The root mean square of the finite entries, or one if that is zero or there are none."""
    finite = array[np.isfinite(array)]
    return float(np.sqrt(np.mean(np.square(finite)))) or 1.0 if finite.size else 1.0


class Neighbourhood:
    """The reference near the arguments, as a function of the displacement of one input; outputs are one flat array."""

    def __init__(
        self, problem: Problem, evaluator: Evaluator, arrays: Sequence[np.ndarray], place: int, seed: int
    ) -> None:
        self._evaluator, self._arrays, self._place = evaluator, arrays, place
        self._tangents = Evaluator(problem, tangents_by_reverse_mode)
        self._dy = [np.zeros(y.shape) for y in problem.outputs]
        self._generator = np.random.default_rng((seed, 7000 + place))
        array = arrays[place]
        size = np.where(np.abs(array) > 1e-300, np.abs(array), typical_size(array))
        self._size = np.where(np.isfinite(array), size, 0.0)

    def outputs(self, displacement: np.ndarray) -> np.ndarray:
        return _flat(self._evaluator.exact(self._displaced(displacement), self._dy)[0])

    def derivative(self, displacement: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """The directional derivative of the outputs that the reference's gradient gives."""
        vectors = [direction if k == self._place else np.zeros(a.shape) for k, a in enumerate(self._arrays)]
        return _flat(self._tangents.exact(self._displaced(displacement), vectors))

    def _displaced(self, displacement: np.ndarray) -> list[np.ndarray]:
        return [a + displacement if k == self._place else a for k, a in enumerate(self._arrays)]

    def random_displacement(self) -> np.ndarray:
        """Moves every finite entry by one to two times its size, so that none stays at a kink."""
        draw = self._generator.uniform(1.0, 2.0, self._size.shape)
        return np.where(self._generator.random(self._size.shape) < 0.5, draw, -draw) * self._size

    def random_direction(self, density: float) -> np.ndarray:
        """A direction in which a fraction ``density`` of the entries, and at least one, are not zero."""
        chosen = self._generator.random(self._size.shape)
        chosen = chosen <= max(density, float(np.min(chosen)))
        return np.where(chosen, self._generator.standard_normal(self._size.shape), 0.0) * self._size


def judge_near(problem: Problem, evaluator: Evaluator, arrays: Sequence[np.ndarray], place: int, seed: int) -> Verdict:
    """Judges the reference's gradient with respect to one input, at the arguments and near them."""
    near = Neighbourhood(problem, evaluator, arrays, place, seed)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        wrong, undecided = _compare_with_differences(near)
        jumps, kinks = _compare_with_gradients_nearby(near)
    wrong, kinks = wrong | jumps, kinks & ~wrong
    return Verdict(int(np.sum(wrong)), int(np.sum(kinks)), int(np.sum(undecided & ~wrong & ~kinks)), wrong.size)


def _compare_with_differences(near: Neighbourhood) -> tuple[np.ndarray, np.ndarray]:
    """Returns two masks of the outputs: the gradient near the arguments is wrong, and it cannot be judged."""
    right, wrong = [], []
    for number in range(POINTS):
        displacement = near.random_displacement()
        direction = near.random_direction(DENSITIES[number % len(DENSITIES)])
        slopes = [_slopes(near, scale * displacement, direction, scale * step) for scale, step in SCALES]
        slope, uncertainty, derivative = (np.array(arrays) for arrays in zip(*slopes, strict=True))
        size = np.maximum(np.abs(slope), np.abs(derivative))
        size = np.maximum(size, _negligible(size))
        agrees = np.abs(slope - derivative) <= 4 * uncertainty
        converged = uncertainty <= CONVERGED * size
        right.append(np.any(converged & agrees, axis=0))
        wrong.append(np.any(converged, axis=0) & ~right[-1])
    is_wrong = np.sum(wrong, axis=0) > 1  # at a single point it could be a coincidence
    return is_wrong, ~np.any(right, axis=0) & ~is_wrong


def _slopes(
    near: Neighbourhood, displacement: np.ndarray, direction: np.ndarray, longest: float
) -> tuple[np.ndarray, ...]:
    """Returns each output's slope by differences at a point, its uncertainty, and the slope that the gradient gives."""
    start = near.outputs(displacement)
    steps = [sign * longest * length for length in (1.0, 0.5, 0.25) for sign in (1, -1)]
    quotients = np.array([(near.outputs(displacement + step * direction) - start) / step for step in steps])
    # The rounding of the output adds to the uncertainty, most at the shortest step.
    rounding = 8 * np.finfo(np.float64).eps * np.abs(start) / (longest / 4)
    uncertainty = np.max(quotients, axis=0) - np.min(quotients, axis=0) + rounding
    return np.mean(quotients, axis=0), uncertainty, near.derivative(displacement, direction)


def _compare_with_gradients_nearby(near: Neighbourhood) -> tuple[np.ndarray, np.ndarray]:
    """Returns two masks of the outputs: the gradient differs from all gradients nearby, and there is a kink."""
    points = [CLOSEST * near.random_displacement() for _ in range(POINTS)]
    jumps, kinks = [], []
    for density in DENSITIES:
        direction = near.random_direction(density)
        here = near.derivative(np.zeros_like(direction), direction)
        nearby = np.array([near.derivative(point, direction) for point in points])
        low, high = np.min(nearby, axis=0), np.max(nearby, axis=0)
        size = np.maximum(np.abs(low), np.abs(high))
        size = np.maximum(size, _negligible(size))
        outside = np.maximum(low - here, here - high)
        kinks.append(high - low > CONVERGED * size)
        jumps.append((outside > 10 * (high - low) + 1e-6 * size) & ~kinks[-1])
    return np.any(jumps, axis=0) & ~np.any(kinks, axis=0), np.any(kinks, axis=0)


def _negligible(size: np.ndarray) -> float:
    """Slopes below this fraction of the largest count as zero, because rounding seldom leaves an exact zero."""
    return 1e-3 * float(np.max(size, initial=0.0, where=np.isfinite(size)))


def _flat(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.ravel(array) for array in arrays])
