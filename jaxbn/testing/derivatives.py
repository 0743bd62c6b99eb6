"""Checks forward mode and second derivatives: `jax.jvp` of the function, and grad and jvp of its gradient.

The second derivatives are those of a loss that is not linear in the outputs, so that the outputs' cotangents depend on
the arguments too.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxbn.testing.collector import Collector
from jaxbn.testing.cotangents import GAUSSIAN, gaussian
from jaxbn.testing.oracle import Evaluator, Operator
from jaxbn.testing.problem import Function, Problem
from jaxbn.testing.scoring import Scorer
from jaxbn.testing.transposition import check_transposition


def gradient_of_nonlinear_loss(function: Function, dy: Sequence[Any]) -> Callable[[Any], Any]:
    """The gradient of ``Σ tanh(y) · dy``."""

    def loss(arrays: Sequence[Any]) -> Any:
        outputs = function(arrays)
        # A sum in half precision would lose all digits, in the rule and in autodiff.
        wide = jnp.float64 if any(y.dtype == jnp.float64 for y in outputs) else jnp.float32
        terms = (jnp.sum(jnp.tanh(y.astype(wide)) * d.astype(wide)) for y, d in zip(outputs, dy, strict=True))
        return functools.reduce(jnp.add, terms)

    return jax.grad(loss)


def grad_of_grad(function: Function) -> Callable[..., Any]:
    """The Hessian-vector product in reverse mode over reverse mode."""

    def product(arrays: Sequence[Any], dy: Sequence[Any], vectors: Sequence[Any]) -> Any:
        _, vjp = jax.vjp(gradient_of_nonlinear_loss(function, dy), list(arrays))
        return vjp(list(vectors))[0]

    return product


def jvp_of_grad(function: Function) -> Callable[..., Any]:
    """The Hessian-vector product in forward mode over reverse mode."""

    def product(arrays: Sequence[Any], dy: Sequence[Any], vectors: Sequence[Any]) -> Any:
        return jax.jvp(gradient_of_nonlinear_loss(function, dy), (list(arrays),), (list(vectors),))[1]

    return product


def jvp(function: Function) -> Callable[..., Any]:
    return lambda arrays, tangents: jax.jvp(function, (list(arrays),), (list(tangents),))[1]


DERIVATIVES: dict[str, Operator] = {"jvp": jvp, "grad of grad": grad_of_grad, "jvp of grad": jvp_of_grad}
SECOND_ORDER = ("grad of grad", "jvp of grad")


def has_forward_mode(problem: Problem) -> bool:
    """Whether `jax.jvp` of the function works; it does not if the function is a `jax.custom_vjp`."""
    try:
        jax.eval_shape(jvp(problem.flattened(problem.fn)), problem.arrays, problem.arrays)
    except Exception:  # also any that the function itself raises when it is traced
        return False
    return True


def check_jvp(collector: Collector, pullbacks: Scorer, seed: int, *, jit: bool) -> None:
    """Checks tangents. If the jvp or the gradient is wrong, also checks whether each is the transpose of the other."""
    check_derivatives(collector, ["jvp"], seed, jit=jit)
    if "jvp" in collector.checked and collector.failures:
        jvps = Scorer(Evaluator(collector.problem, jvp, jit=jit), collector.problem.outputs)
        check_transposition(collector, pullbacks, jvps, seed)


def check_derivatives(collector: Collector, names: Sequence[str], seed: int, *, jit: bool) -> None:
    """Checks derivatives along random vectors with the precision rule.

    ``names`` must be names of the same derivative, so that the truth is computed once for all of them.
    """
    problem = collector.problem
    second_order = names[0] in SECOND_ORDER
    leaves = problem.inputs if second_order else problem.outputs
    size = problem.input_size + problem.output_size
    vectors = [_vectors(problem, seed, number, second_order=second_order) for number in range(GAUSSIAN)]
    scorer = Scorer(Evaluator(problem, DERIVATIVES[names[0]], jit=jit), leaves)
    expected: list[Any] = []
    for name in names:
        collector.progress(name)
        rule = Evaluator(problem, DERIVATIVES[name], jit=jit).rule
        try:
            results = [rule(*arguments) for arguments in vectors]
        except Exception as error:
            collector.transformation_raised(name, error)
            continue
        try:
            expected = expected or [scorer.expected(*arguments) for arguments in vectors]
            trials = [
                scorer.trial_against(f"gaussian {k}", got, *expected[k], *vectors[k]) for k, got in enumerate(results)
            ]
        except Exception as error:
            collector.unchecked.append((name, f"the reference raises {type(error).__name__}: {error}"))
            continue
        check, kind = ("second derivative", "cotangent") if second_order else ("directional derivative", "tangent")
        collector.judge(trials, leaves, size=size, check=check, transformation=name, kind=kind)
        collector.checked.append(name)


def _vectors(problem: Problem, seed: int, number: int, *, second_order: bool) -> list[list[jax.Array]]:
    """The derivative's arguments: the inputs, for a second derivative the outputs' cotangents, and the tangents."""
    vectors = [problem.arrays, gaussian(problem.inputs, seed, 3000 + number).arrays]
    if second_order:
        vectors.insert(1, gaussian(problem.outputs, seed, 4000 + number).arrays)
    return vectors
