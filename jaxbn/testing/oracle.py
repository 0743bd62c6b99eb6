"""Evaluates one derivative three ways: by the rule, by autodiff in the same dtypes, and by autodiff in float64.

The last is the truth that the other two are compared with. ``jax.enable_x64`` switches the precision for that
computation alone; JAX caches compiled functions by precision too, so the other computations are not affected.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxbn.testing.problem import Function, Problem, is_floating

Arrays = list[np.ndarray]
Operator = Callable[[Function], Callable[..., Any]]
"""Turns a function of a list of arrays into one of its derivatives, such as `pullback`."""


def to_float64(array: Any) -> np.ndarray:
    return np.asarray(array).astype(np.float64)


def pullback(function: Function) -> Callable[..., Any]:
    """Returns a function from inputs and output cotangents to outputs and input cotangents."""

    def pulled(arrays: Sequence[Any], dy: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        outputs, vjp = jax.vjp(function, list(arrays))
        return outputs, vjp(list(dy))[0]

    return pulled


class Evaluator:
    """A derivative, such as the pullback, of both functions of a problem.

    ``jit`` says whether the rule can be compiled. If not, it runs eagerly.
    """

    def __init__(self, problem: Problem, operator: Operator, *, jit: bool = True) -> None:
        rule = operator(problem.flattened(problem.fn))
        self.rule = jax.jit(rule) if jit else rule
        self._autodiff = jax.jit(operator(problem.flattened(problem.reference)))
        self._exact = jax.jit(operator(problem.flattened(problem.reference, float64_constant)))
        self._in_float32 = jax.jit(operator(problem.flattened(problem.reference, float32_constant)))

    def exact(self, *vectors: Sequence[Any]) -> Any:
        """Autodiff of the reference in float64. Arguments and results are NumPy arrays."""
        with jax.enable_x64(True):
            return jax.tree.map(to_float64, self._exact(*([to_float64(a) for a in arrays] for arrays in vectors)))

    def autodiff(self, *vectors: Sequence[Any]) -> Any:
        """Autodiff of the reference in the dtypes of the arguments."""
        return jax.tree.map(to_float64, self._autodiff(*vectors))

    def in_float32(self, *vectors: Sequence[Any]) -> tuple[Any, Any]:
        """Autodiff of the reference in float32, and in float64 at the same arguments, which are rounded to float32.

        Their difference is autodiff's error in float32. Its error in float64 cannot be measured, and is estimated by
        multiplying this one by the ratio of the two epsilons.
        """
        narrow = [[np.asarray(array).astype(np.float32) for array in arrays] for arrays in vectors]
        return jax.tree.map(to_float64, self._in_float32(*narrow)), self.exact(*narrow)


def float64_constant(leaf: Any) -> Any:
    return jnp.asarray(to_float64(leaf)) if is_floating(leaf) else leaf


def float32_constant(leaf: Any) -> Any:
    return jnp.asarray(to_float64(leaf), jnp.float32) if is_floating(leaf) else leaf
