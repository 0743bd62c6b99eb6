"""The rules under JAX's transformations: `TRANSFORMATIONS` has an assertion for each."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

import jaxbn
from tests.support.cases import Case
from tests.support.compare import Function, assert_close, cotangents, pullback, true_pullback

MEMBERS = 3


def both(case: Case) -> tuple[Function, Function]:
    return case.function(jaxbn), case.function(jaxbn.reference)


def outputs_of(case: Case) -> Any:
    return jax.eval_shape(case.function(jaxbn), *case.arrays())


def expected(case: Case, arrays: Sequence[jax.Array], dy: Sequence[jax.Array]) -> Any:
    return true_pullback(case.function(jaxbn.reference))(arrays, dy)


def members(case: Case) -> tuple[list[list[jax.Array]], list[list[jax.Array]]]:
    """Several sets of arguments and cotangents."""
    return [case.arrays(seed) for seed in range(MEMBERS)], [cotangents(outputs_of(case), s) for s in range(MEMBERS)]


def stacked(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def eager(case: Case) -> None:
    arrays, dy = case.arrays(), cotangents(outputs_of(case), 0)
    assert_close(pullback(case.function(jaxbn), arrays, dy), expected(case, arrays, dy), case.tolerance)


def vmap_over_every_argument_and_the_cotangent(case: Case) -> None:
    arrays, dy = members(case)
    want = stacked([expected(case, *member) for member in zip(arrays, dy, strict=True)])
    got = jax.jit(jax.vmap(partial(pullback, case.function(jaxbn))))(stacked(arrays), stacked(dy))
    assert_close(got, want, case.tolerance)


def vmap_over_one_argument_at_a_time(case: Case) -> None:
    (arrays, *_), (dy, *_) = members(case)
    for position, name in enumerate(case.names):
        batch = [case.arrays(seed)[position] for seed in range(MEMBERS)]
        sets = [[*arrays[:position], member, *arrays[position + 1 :]] for member in batch]
        want = stacked([expected(case, one, dy) for one in sets])
        in_axes = [1 if index == position else None for index in range(len(arrays))]
        arguments = [*arrays[:position], jnp.stack(batch, 1), *arrays[position + 1 :]]
        got = jax.jit(jax.vmap(partial(pullback, case.function(jaxbn)), (in_axes, None)))(arguments, dy)
        assert_close(got, want, case.tolerance, [name])


def vmap_of_the_pullback(case: Case) -> None:
    arrays, dy = case.arrays(), members(case)[1]
    want = stacked([expected(case, arrays, each)[1] for each in dy])
    _, vjp = jax.vjp(case.function(jaxbn), *arrays)
    assert_close(jax.jit(jax.vmap(vjp))(stacked(dy)), want, case.tolerance)


def nested_vmap(case: Case) -> None:
    arrays, dy = members(case)
    twice = [stacked(arrays), stacked(arrays[::-1])]
    want = stacked(
        [stacked([expected(case, a, d) for a, d in zip(row, dy, strict=True)]) for row in (arrays, arrays[::-1])]
    )
    got = jax.jit(jax.vmap(jax.vmap(partial(pullback, case.function(jaxbn))), (0, None)))(stacked(twice), stacked(dy))
    assert_close(got, want, case.tolerance)


def scan(case: Case) -> None:
    arrays, dy = members(case)
    want = stacked([expected(case, *member) for member in zip(arrays, dy, strict=True)])

    @jax.jit
    def scanned(arrays: Any, dy: Any) -> Any:
        step = partial(pullback, case.function(jaxbn))
        return jax.lax.scan(lambda carry, member: (carry, step(*member)), None, (arrays, dy))[1]

    assert_close(scanned(stacked(arrays), stacked(dy)), want, case.tolerance)


def checkpoint(case: Case) -> None:
    arrays, dy = case.arrays(), cotangents(outputs_of(case), 0)
    got = jax.jit(partial(pullback, jax.checkpoint(case.function(jaxbn))))(arrays, dy)
    assert_close(got, expected(case, arrays, dy), case.tolerance)


def curved_loss(function: Function, dy: Sequence[jax.Array], arrays: Sequence[jax.Array]) -> jax.Array:
    """Not linear in the outputs, so that the cotangent depends on them too."""
    return sum((jnp.sum(jnp.tanh(y) * each) for y, each in zip(function(*arrays), dy, strict=True)), jnp.zeros(()))


def penalty(function: Function, dy: Sequence[jax.Array], arrays: Sequence[jax.Array]) -> jax.Array:
    """A scalar of the first derivatives that is not linear in them."""
    gradients = jax.grad(partial(curved_loss, function, dy))(arrays)
    return sum((jnp.sum(jnp.sin(gradient)) for gradient in gradients), jnp.zeros(()))


def grad_of_grad(case: Case) -> None:
    arrays, dy = case.arrays(), cotangents(outputs_of(case), 0)
    got, want = (jax.jit(jax.grad(partial(penalty, function, dy)))(arrays) for function in both(case))
    assert_close(got, want, 10 * case.tolerance, case.names)


def jvp_of_grad(case: Case) -> None:
    arrays, dy, tangents = case.arrays(), cotangents(outputs_of(case), 0), case.arrays(seed=7)

    def hessian_vector_product(function: Function) -> Any:
        gradient = jax.grad(partial(curved_loss, function, dy))
        return jax.jit(lambda arrays, tangents: jax.jvp(gradient, (arrays,), (tangents,)))(arrays, tangents)

    got, want = (hessian_vector_product(function) for function in both(case))
    assert_close(got, want, 10 * case.tolerance)


# Each asserts that a case computes under it what its reference computes without it, or under the same for derivatives.
TRANSFORMATIONS: dict[str, Callable[[Case], None]] = {
    "eager": eager,
    "vmap over every argument and the cotangent": vmap_over_every_argument_and_the_cotangent,
    "vmap over one argument at a time": vmap_over_one_argument_at_a_time,
    "vmap of the pullback": vmap_of_the_pullback,
    "nested vmap": nested_vmap,
    "scan": scan,
    "checkpoint": checkpoint,
    "grad of grad": grad_of_grad,
    "jvp of grad": jvp_of_grad,
}
