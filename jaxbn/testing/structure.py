"""Checks that each cotangent has its primal's shape, dtype and weak type, and float0 where the primal is an integer.

JAX itself checks the tree and the shapes of a rule's result, but accepts a wrong dtype.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxbn.testing.collector import Collector
from jaxbn.testing.cotangents import gaussian
from jaxbn.testing.problem import Function, Leaf, Problem, floating_leaves
from jaxbn.testing.report import Failure


def check_structure(collector: Collector, seed: int, *, jit: bool) -> None:
    """Checks the objects that the rule itself returns, because `jax.jit` would convert them to arrays.

    If the rule can be traced, it is only traced and not run.
    """
    problem = collector.problem
    leaves = [*problem.inputs, *problem.integer_inputs]
    cotangents = _cotangents(problem, problem.fn, leaves, seed, jit=jit)
    primals = [problem.flat[leaf.flat_index] for leaf in leaves]
    autodiff = cotangents
    if any(_is_weak(got) != _is_weak(primal) for got, primal in zip(cotangents, primals, strict=True)):
        # The rule may lose the weak type if autodiff loses it too.
        autodiff = _cotangents(problem, problem.reference, leaves, seed, jit=jit)
    for leaf, got, plain, primal in zip(leaves, cotangents, autodiff, primals, strict=True):
        dtype = leaf.dtype if leaf in problem.inputs else jax.dtypes.float0
        for fault in _faults(got, plain, primal, dtype):
            collector.failures.append(Failure("structure", f"the cotangent of `{leaf.name}` {fault}", leaf.name))
    collector.checked.append("shapes, dtypes and weak types of cotangents")


def _cotangents(problem: Problem, function: Function, leaves: Sequence[Leaf], seed: int, *, jit: bool) -> list[Any]:
    """The cotangents that the pullback of ``function`` returns for ``leaves``, as tracers if ``jit``."""

    def outputs(arrays: Sequence[jax.Array]) -> list[jax.Array]:
        return floating_leaves(function(*problem.arguments_with(leaves, arrays)))

    returned: list[Any] = []

    def run(arrays: Sequence[jax.Array], dy: Sequence[jax.Array]) -> None:
        returned.extend(jax.vjp(outputs, list(arrays))[1](list(dy))[0])

    arrays, dy = [problem.flat[leaf.flat_index] for leaf in leaves], gaussian(problem.outputs, seed, 0).arrays
    if jit:
        jax.eval_shape(run, arrays, dy)
    else:
        run(arrays, dy)
    return returned


def _faults(got: Any, autodiff: Any, primal: jax.Array, dtype: Any) -> list[str]:
    if not hasattr(got, "dtype"):
        return [f"is a {type(got).__name__}, not an array; it must be one of {dtype}{list(primal.shape)}"]
    faults = []
    if np.shape(got) != primal.shape:
        faults.append(f"has shape {np.shape(got)}; it must be its primal's, {primal.shape}")
    if got.dtype != dtype:
        wanted = "float0, as for every primal that is not floating-point" if dtype == jax.dtypes.float0 else dtype
        faults.append(f"has dtype {got.dtype}; it must be {wanted}")
    elif _is_weak(got) != _is_weak(primal) == _is_weak(autodiff):
        faults.append(f"has weak_type={_is_weak(got)}; it must be its primal's, {_is_weak(primal)}")
    return faults


def _is_weak(array: Any) -> bool:
    return bool(getattr(array, "weak_type", False))
