"""What a cotangent must be beside right: of its primal's shape, dtype and weak type, float0 for integers.

JAX sees to the tree and the shapes of a rule's cotangents itself; a wrong dtype it lets through.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxbn.testing.collector import Collector
from jaxbn.testing.cotangents import gaussian
from jaxbn.testing.problem import Function, Leaf, Problem, is_floating
from jaxbn.testing.report import Failure


def check_structure(collector: Collector, seed: int, *, jit: bool) -> None:
    """Of what the rule itself returns: what comes out of `jax.jit` are arrays of some dtype whatever goes in.

    To know it, tracing is enough, where the rule can be traced.
    """
    problem = collector.problem
    leaves = [*problem.inputs, *problem.integers]
    cotangents = _cotangents(problem, problem.fn, leaves, seed, jit=jit)
    primals = [problem.flat[leaf.place] for leaf in leaves]
    autodiff = cotangents
    if any(_weak(got) != _weak(primal) for got, primal in zip(cotangents, primals, strict=True)):
        # Which loses the weak type at times as well.
        autodiff = _cotangents(problem, problem.reference, leaves, seed, jit=jit)
    for leaf, got, plain, primal in zip(leaves, cotangents, autodiff, primals, strict=True):
        dtype = leaf.dtype if leaf in problem.inputs else jax.dtypes.float0
        for message in _faults(got, plain, primal, dtype):
            message = f"the cotangent of `{leaf.name}` {message}"
            collector.failures.append(Failure("structure", message, leaf.name))
    collector.checked.append("shapes, dtypes and weak types of cotangents")


def _cotangents(problem: Problem, function: Function, leaves: Sequence[Leaf], seed: int, *, jit: bool) -> list[Any]:
    def of_leaves(arrays: Sequence[jax.Array]) -> list[jax.Array]:
        flat = list(problem.flat)
        for leaf, array in zip(leaves, arrays, strict=True):
            flat[leaf.place] = array
        outputs = function(*jax.tree.unflatten(problem.tree, flat))
        return [leaf for leaf in jax.tree.leaves(outputs) if is_floating(leaf)]

    returned: list[Any] = []

    def run(arrays: Sequence[jax.Array], dy: Sequence[jax.Array]) -> None:
        returned.extend(jax.vjp(of_leaves, list(arrays))[1](list(dy))[0])

    arrays, dy = [problem.flat[leaf.place] for leaf in leaves], gaussian(problem.outputs, seed, 0).arrays
    if jit:
        jax.eval_shape(run, arrays, dy)
    else:
        run(arrays, dy)
    return returned


def _faults(got: Any, autodiff: Any, primal: jax.Array, dtype: Any) -> list[str]:
    if not hasattr(got, "dtype"):
        return [f"is a {type(got).__name__}, no array; it must be one of {dtype}{list(primal.shape)}"]
    faults = []
    if np.shape(got) != primal.shape:
        faults.append(f"has shape {np.shape(got)}; it must be its primal's, {primal.shape}")
    if got.dtype != dtype:
        wanted = "float0, as of everything that is no floating-point array" if dtype == jax.dtypes.float0 else dtype
        faults.append(f"has dtype {got.dtype}; it must be {wanted}")
    elif _weak(got) != _weak(primal) == _weak(autodiff):
        faults.append(f"has weak_type={_weak(got)}; it must be its primal's, {_weak(primal)}")
    return faults


def _weak(array: Any) -> bool:
    return bool(getattr(array, "weak_type", False))
