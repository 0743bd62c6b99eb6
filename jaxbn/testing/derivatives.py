"""Derivatives other than the gradient: forward mode, and reverse over reverse and forward over reverse.

The second ones are of a loss that is curved in the outputs, so that the cotangent depends on the arguments too.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxbn.testing.collector import Collector
from jaxbn.testing.cotangents import GAUSSIAN, gaussian
from jaxbn.testing.gradients import Truth
from jaxbn.testing.oracle import Derivative, Sides
from jaxbn.testing.problem import Function, Problem


def gradient_of_curved_loss(function: Function, dy: Sequence[Any]) -> Callable[[Any], Any]:
    """Of ``Σ tanh(y) · dy``: the cotangent that it sends back depends on the outputs."""

    def loss(arrays: Sequence[Any]) -> Any:
        outputs = function(arrays)
        # In half precision a sum would lose all digits on both sides.
        wide = jnp.float64 if any(y.dtype == jnp.float64 for y in outputs) else jnp.float32
        terms = (jnp.sum(jnp.tanh(y.astype(wide)) * d.astype(wide)) for y, d in zip(outputs, dy, strict=True))
        return functools.reduce(jnp.add, terms)

    return jax.grad(loss)


def grad_of_grad(function: Function) -> Callable[..., Any]:
    """The Hessian times a vector, by the pullback of the gradient."""

    def product(arrays: Sequence[Any], dy: Sequence[Any], vectors: Sequence[Any]) -> Any:
        _, vjp = jax.vjp(gradient_of_curved_loss(function, dy), list(arrays))
        return vjp(list(vectors))[0]

    return product


def jvp_of_grad(function: Function) -> Callable[..., Any]:
    """The same by the gradient's directional derivative."""

    def product(arrays: Sequence[Any], dy: Sequence[Any], vectors: Sequence[Any]) -> Any:
        return jax.jvp(gradient_of_curved_loss(function, dy), (list(arrays),), (list(vectors),))[1]

    return product


def forward(function: Function) -> Callable[..., Any]:
    return lambda arrays, tangents: jax.jvp(function, (list(arrays),), (list(tangents),))[1]


DERIVATIVES: dict[str, Derivative] = {"jvp": forward, "grad of grad": grad_of_grad, "jvp of grad": jvp_of_grad}
SECOND_ORDER = ("grad of grad", "jvp of grad")


def check_derivatives(collector: Collector, names: Sequence[str], seed: int, *, jit: bool) -> None:
    """Along random vectors, by the precision rule. The names are of one derivative, which has one truth."""
    problem = collector.problem
    second = names[0] in SECOND_ORDER
    leaves = problem.inputs if second else problem.outputs
    size = sum(leaf.size for leaf in (*problem.inputs, *problem.outputs))
    vectors = [_vectors(problem, seed, number, second=second) for number in range(GAUSSIAN)]
    truth = Truth(Sides(problem, DERIVATIVES[names[0]], jit=jit), leaves)
    known: list[Any] = []
    for name in names:
        collector.progress(name)
        rule = Sides(problem, DERIVATIVES[name], jit=jit).rule
        try:
            found = [rule(*each) for each in vectors]
        except Exception as error:
            collector.raised(name, error)
            continue
        try:
            known = known or [truth.of(*each) for each in vectors]
            trials = [truth.scored(f"gaussian {k}", got, *known[k], *vectors[k]) for k, got in enumerate(found)]
        except Exception as error:
            collector.unchecked.append((name, f"the reference raises {type(error).__name__}: {error}"))
            continue
        check = "second derivative" if second else "directional derivative"
        collector.judge(trials, leaves, size=size, check=check, transformation=name)
        collector.checked.append(name)


def _vectors(problem: Problem, seed: int, number: int, *, second: bool) -> list[list[jax.Array]]:
    vectors = [problem.arrays, gaussian(problem.inputs, seed, 3000 + number).arrays]
    if second:
        vectors.insert(1, gaussian(problem.outputs, seed, 4000 + number).arrays)
    return vectors
