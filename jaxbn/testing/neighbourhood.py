"""Whether the reference's gradient is right at a point where plain differences do not settle it.

At a kink the slopes on the two sides differ, and near a singularity a step of ordinary size leaves the region in which
the function is smooth. Neither is a problem at points very near the arguments, with steps that are smaller still: there
a function is smooth in practice. So the gradient is compared with differences at several such points, for each output
separately, and the gradient at the arguments is compared with the gradients beside them:

- differences settle on another value than the gradient gives: the reference is wrong;
- the gradients beside the arguments agree with each other, and that at the arguments is another: wrong as well;
- the gradients beside the arguments differ from each other: there is a kink, and no derivative to compare with;
- differences do not settle, or something is not finite: nothing can be told.

The factors below are chosen with a margin: differences of a smooth function in float64 agree to 1e-5 and better, and a
gradient without one of its terms is off by far more than they differ.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxbn.testing.gradients import Truth
from jaxbn.testing.oracle import Sides
from jaxbn.testing.problem import Function, Problem

POINTS = 12
"""How many points beside the arguments. Few could all lie on one side of a kink."""

SCALES = ((2.0**-8, 2.0**-9), (2.0**-20, 2.0**-9), (2.0**-33, 2.0**-4))
"""Pairs of two factors: a point's distance from the arguments, and the longest step of the differences at that point.

The distance is relative to the size of each entry, the step is relative to the distance. Long steps see small terms
beside large ones, short steps stay away from singularities.
"""

CLOSEST = 2.0**-44
"""The distance at which gradients are compared with the gradient at the arguments."""

DENSITIES = (1.0, 0.5, 0.25, 0.1)
"""Fractions of the entries that move. If few move, a singular one is often not among them."""

SETTLED = 1e-3
"""Differences that agree to this fraction have settled."""


class Verdict(NamedTuple):
    """How many outputs are of each kind; the others are right."""

    wrong: int
    kinks: int
    unsettled: int
    outputs: int


def tangents_by_reverse_mode(function: Function) -> Callable[..., Any]:
    """The Jacobian times a vector, by transposing the pullback, which is linear.

    Forward mode is another derivative than the one in question, and a reference with a `jax.custom_vjp` has none.
    """

    def pushed(arrays: Sequence[Any], direction: Sequence[Any]) -> list[Any]:
        outputs, vjp = jax.vjp(function, list(arrays))

        def along(dy: Sequence[Any]) -> Any:
            return sum((jnp.vdot(g, v) for g, v in zip(vjp(dy)[0], direction, strict=True)), jnp.zeros(()))

        return jax.grad(along)([jnp.zeros_like(y) for y in outputs])

    return pushed


def typical_size(array: np.ndarray) -> float:
    """The root mean square of the finite entries; one if they are all zero, or if there are none."""
    finite = array[np.isfinite(array)]
    return float(np.sqrt(np.mean(np.square(finite)))) or 1.0 if finite.size else 1.0


class Neighbourhood:
    """The reference as a function of one input, near the arguments; outputs are one flat array."""

    def __init__(self, problem: Problem, truth: Truth, arrays: Sequence[np.ndarray], place: int, seed: int) -> None:
        self._truth, self._arrays, self._place = truth, arrays, place
        self._tangents = Sides(problem, tangents_by_reverse_mode)
        self._dy = [np.zeros(y.shape) for y in problem.outputs]
        self._generator = np.random.default_rng((seed, 7000 + place))
        array = arrays[place]
        size = np.where(np.abs(array) > 1e-300, np.abs(array), typical_size(array))
        self._size = np.where(np.isfinite(array), size, 0.0)

    def outputs(self, moved: np.ndarray) -> np.ndarray:
        return _flat(self._truth.sides.exact(self._with(moved), self._dy)[0])

    def derivative(self, moved: np.ndarray, direction: np.ndarray) -> np.ndarray:
        vectors = [direction if k == self._place else np.zeros(a.shape) for k, a in enumerate(self._arrays)]
        return _flat(self._tangents.exact(self._with(moved), vectors))

    def _with(self, moved: np.ndarray) -> list[np.ndarray]:
        return [a + moved if k == self._place else a for k, a in enumerate(self._arrays)]

    def displacement(self) -> np.ndarray:
        """No entry stays where it is, so that none stays at a kink."""
        draw = self._generator.uniform(1.0, 2.0, self._size.shape)
        return np.where(self._generator.random(self._size.shape) < 0.5, draw, -draw) * self._size

    def direction(self, density: float) -> np.ndarray:
        """Of so many entries, one at least."""
        chosen = self._generator.random(self._size.shape)
        chosen = chosen <= max(density, float(np.min(chosen)))
        return np.where(chosen, self._generator.standard_normal(self._size.shape), 0.0) * self._size


def judge_near(problem: Problem, truth: Truth, arrays: Sequence[np.ndarray], place: int, seed: int) -> Verdict:
    """The reference's gradient with respect to one input, at the arguments and beside them."""
    near = Neighbourhood(problem, truth, arrays, place, seed)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        wrong, unsettled = _beside(near)
        jumps, kinks = _at(near)
    wrong, kinks = wrong | jumps, kinks & ~wrong
    return Verdict(int(np.sum(wrong)), int(np.sum(kinks)), int(np.sum(unsettled & ~wrong & ~kinks)), wrong.size)


def _beside(near: Neighbourhood) -> tuple[np.ndarray, np.ndarray]:
    """Which outputs are wrong beside the arguments, and of which nothing can be told at any point."""
    right, wrong = [], []
    for number in range(POINTS):
        u, v = near.displacement(), near.direction(DENSITIES[number % len(DENSITIES)])
        slopes = [_slopes(near, scale * u, v, scale * step) for scale, step in SCALES]
        slope, uncertain, derivative = (np.array(each) for each in zip(*slopes, strict=True))
        size = np.maximum(np.abs(slope), np.abs(derivative))
        size = np.maximum(size, _least(size))
        agrees = np.abs(slope - derivative) <= 4 * uncertain
        settled = uncertain <= SETTLED * size
        right.append(np.any(settled & agrees, axis=0))
        wrong.append(np.any(settled, axis=0) & ~right[-1])
    is_wrong = np.sum(wrong, axis=0) > 1  # at one point alone it could be a coincidence
    return is_wrong, ~np.any(right, axis=0) & ~is_wrong


def _slopes(near: Neighbourhood, beside: np.ndarray, direction: np.ndarray, longest: float) -> tuple[np.ndarray, ...]:
    """Each output's slope by differences at a point, how uncertain it is, and the slope that the gradient gives."""
    here = near.outputs(beside)
    steps = [sign * longest * length for length in (1.0, 0.5, 0.25) for sign in (1, -1)]
    quotients = np.array([(near.outputs(beside + step * direction) - here) / step for step in steps])
    # The output's own rounding makes the shortest step uncertain as well.
    rounding = 8 * np.finfo(np.float64).eps * np.abs(here) / (longest / 4)
    uncertain = np.max(quotients, axis=0) - np.min(quotients, axis=0) + rounding
    return np.mean(quotients, axis=0), uncertain, near.derivative(beside, direction)


def _at(near: Neighbourhood) -> tuple[np.ndarray, np.ndarray]:
    """Which outputs have a gradient at the arguments that is not the one all around them, and which have kinks."""
    points = [CLOSEST * near.displacement() for _ in range(POINTS)]
    jumps, kinks = [], []
    for density in DENSITIES:
        direction = near.direction(density)
        here = near.derivative(np.zeros_like(direction), direction)
        around = np.array([near.derivative(point, direction) for point in points])
        low, high = np.min(around, axis=0), np.max(around, axis=0)
        size = np.maximum(np.abs(low), np.abs(high))
        size = np.maximum(size, _least(size))
        outside = np.maximum(low - here, here - high)
        kinks.append(high - low > SETTLED * size)
        jumps.append((outside > 10 * (high - low) + 1e-6 * size) & ~kinks[-1])
    return np.any(jumps, axis=0) & ~np.any(kinks, axis=0), np.any(kinks, axis=0)


def _least(size: np.ndarray) -> float:
    """A slope below this part of the largest is as good as zero, which rounding seldom leaves at zero."""
    return 1e-3 * float(np.max(size, initial=0.0, where=np.isfinite(size)))


def _flat(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.ravel(array) for array in arrays])
