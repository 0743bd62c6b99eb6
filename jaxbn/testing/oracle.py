"""The truth, autodiff of the unmodified forward in float64, beside what the rule gives and what plain autodiff gives.

Precision is switched by a context, for the computation of the truth alone. JAX's compiled functions know it: precision
is part of what they are cached by.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxbn.testing.problem import Function, Problem, is_floating

Arrays = list[np.ndarray]
Derivative = Callable[[Function], Callable[..., Any]]
"""Makes of a function of arrays one of arrays and further vectors, such as its pullback."""


def doubled(array: Any) -> np.ndarray:
    return np.asarray(array).astype(np.float64)


def pullback(function: Function) -> Callable[..., Any]:
    def pulled(arrays: Sequence[Any], dy: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        outputs, vjp = jax.vjp(function, list(arrays))
        return outputs, vjp(list(dy))[0]

    return pulled


class Sides:
    """One derivative, three ways: by the rule, by autodiff in the same dtypes, and in truth.

    ``jit`` says whether the rule can be compiled; a rule that cannot runs as it is.
    """

    def __init__(self, problem: Problem, derivative: Derivative, *, jit: bool = True) -> None:
        rule = derivative(problem.view(problem.fn))
        self.rule = jax.jit(rule) if jit else rule
        self._plain = jax.jit(derivative(problem.view(problem.reference)))
        self._exact = jax.jit(derivative(problem.view(problem.reference, double_constant)))
        self._narrow = jax.jit(derivative(problem.view(problem.reference, single_constant)))

    def exact(self, *vectors: Sequence[Any]) -> Any:
        """In float64; vectors and results are NumPy's."""
        with jax.enable_x64(True):
            return jax.tree.map(doubled, self._exact(*([doubled(a) for a in each] for each in vectors)))

    def plain(self, *vectors: Sequence[Any]) -> Any:
        return jax.tree.map(doubled, self._plain(*vectors))

    def rounding(self, *vectors: Sequence[Any]) -> tuple[Any, Any]:
        """What autodiff gives in float32, and the truth of the same rounded arguments.

        Of float64's own error there is no truth to know it by; it is float32's in the ratio of their epsilons.
        """
        narrow = [[np.asarray(array).astype(np.float32) for array in each] for each in vectors]
        return jax.tree.map(doubled, self._narrow(*narrow)), self.exact(*narrow)


def double_constant(leaf: Any) -> Any:
    return jnp.asarray(doubled(leaf)) if is_floating(leaf) else leaf


def single_constant(leaf: Any) -> Any:
    return jnp.asarray(doubled(leaf), jnp.float32) if is_floating(leaf) else leaf
