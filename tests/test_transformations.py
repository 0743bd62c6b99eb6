"""The rules under JAX's transformations, each against the reference under none, or under the same for derivatives.

`COVERING_CASES` are crossed with every transformation.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbn
from tests.support.cases import COVERING_CASES, Case
from tests.support.compare import Function, assert_close, cotangents, pullback, true_pullback

pytestmark = pytest.mark.usefixtures("quickly_compiled")

covering = pytest.mark.parametrize("case", COVERING_CASES, ids=str)
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


@covering
def test_eager(case: Case) -> None:
    arrays, dy = case.arrays(), cotangents(outputs_of(case), 0)
    assert_close(pullback(case.function(jaxbn), arrays, dy), expected(case, arrays, dy), case.tolerance)


@covering
def test_vmap_over_every_argument_and_the_cotangent(case: Case) -> None:
    arrays, dy = members(case)
    want = stacked([expected(case, *member) for member in zip(arrays, dy, strict=True)])
    got = jax.jit(jax.vmap(partial(pullback, case.function(jaxbn))))(stacked(arrays), stacked(dy))
    assert_close(got, want, case.tolerance)


@covering
def test_vmap_over_one_argument_at_a_time(case: Case) -> None:
    (arrays, *_), (dy, *_) = members(case)
    for position, name in enumerate(case.names):
        batch = [case.arrays(seed)[position] for seed in range(MEMBERS)]
        sets = [[*arrays[:position], member, *arrays[position + 1 :]] for member in batch]
        want = stacked([expected(case, one, dy) for one in sets])
        in_axes = [1 if index == position else None for index in range(len(arrays))]
        arguments = [*arrays[:position], jnp.stack(batch, 1), *arrays[position + 1 :]]
        got = jax.jit(jax.vmap(partial(pullback, case.function(jaxbn)), (in_axes, None)))(arguments, dy)
        assert_close(got, want, case.tolerance, [name])


@covering
def test_vmap_of_the_pullback(case: Case) -> None:
    arrays, dy = case.arrays(), members(case)[1]
    want = stacked([expected(case, arrays, each)[1] for each in dy])
    _, vjp = jax.vjp(case.function(jaxbn), *arrays)
    assert_close(jax.jit(jax.vmap(vjp))(stacked(dy)), want, case.tolerance)


@covering
def test_nested_vmap(case: Case) -> None:
    arrays, dy = members(case)
    twice = [stacked(arrays), stacked(arrays[::-1])]
    want = stacked(
        [stacked([expected(case, a, d) for a, d in zip(row, dy, strict=True)]) for row in (arrays, arrays[::-1])]
    )
    got = jax.jit(jax.vmap(jax.vmap(partial(pullback, case.function(jaxbn))), (0, None)))(stacked(twice), stacked(dy))
    assert_close(got, want, case.tolerance)


@covering
def test_scan(case: Case) -> None:
    arrays, dy = members(case)
    want = stacked([expected(case, *member) for member in zip(arrays, dy, strict=True)])

    @jax.jit
    def scanned(arrays: Any, dy: Any) -> Any:
        step = partial(pullback, case.function(jaxbn))
        return jax.lax.scan(lambda carry, member: (carry, step(*member)), None, (arrays, dy))[1]

    assert_close(scanned(stacked(arrays), stacked(dy)), want, case.tolerance)


@covering
def test_checkpoint(case: Case) -> None:
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


@covering
def test_grad_of_grad(case: Case) -> None:
    arrays, dy = case.arrays(), cotangents(outputs_of(case), 0)
    got, want = (jax.jit(jax.grad(partial(penalty, function, dy)))(arrays) for function in both(case))
    assert_close(got, want, 10 * case.tolerance, case.names)


@covering
def test_jvp_of_grad(case: Case) -> None:
    arrays, dy, tangents = case.arrays(), cotangents(outputs_of(case), 0), case.arrays(seed=7)

    def hessian_vector_product(function: Function) -> Any:
        gradient = jax.grad(partial(curved_loss, function, dy))
        return jax.jit(lambda arrays, tangents: jax.jvp(gradient, (arrays,), (tangents,)))(arrays, tangents)

    got, want = (hessian_vector_product(function) for function in both(case))
    assert_close(got, want, 10 * case.tolerance)


def small_network(module: Any, parameters: dict[str, jax.Array], images: jax.Array) -> jax.Array:
    """Every operation once."""
    x = module.conv(images, parameters["down"], parameters["bias"], stride=2, padding="SAME", flip_kernel=True)
    x, moments = module.batch_norm(x, parameters["gamma"], parameters["beta"])
    x = jnp.tanh(x)
    x = module.conv_transpose(x, parameters["up"], stride=2)
    x = module.batch_norm_inference(x, moments.mean[:1], 1 + moments.var[:1], parameters["gamma"][:1])
    return jnp.mean(jnp.square(x - images)) + jnp.sum(moments.mean * moments.var)


def network_parameters() -> tuple[dict[str, jax.Array], jax.Array]:
    shapes = {"down": (3, 3, 1, 2), "bias": (2,), "gamma": (2,), "beta": (2,), "up": (2, 3, 1, 2)}
    generator = np.random.default_rng(5)
    parameters = {name: jnp.asarray(0.5 * generator.normal(size=shape)) for name, shape in shapes.items()}
    return parameters, jnp.asarray(generator.normal(size=(3, 4, 6, 1)))


@pytest.mark.parametrize(
    "derivative",
    [
        jax.hessian,
        lambda loss: jax.jacrev(jax.grad(loss)),
        lambda loss: lambda p, x: jax.jvp(jax.grad(loss), (p, x), (p, x)),
        lambda loss: jax.grad(
            lambda p, x: sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(jax.grad(loss)(p, x)))
        ),
    ],
    ids=["hessian", "jacrev of grad", "jvp of grad", "grad of grad"],
)
def test_second_derivatives_of_a_network_through_every_operation(derivative: Callable[[Function], Function]) -> None:
    got, want = (
        jax.jit(derivative(partial(small_network, module)))(*network_parameters())
        for module in (jaxbn, jaxbn.reference)
    )
    largest = max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(want))
    # Entries of a Hessian that are zero in exact arithmetic, such as the bias's in front of a batch norm, are rounding.
    for ours, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert np.max(np.abs(ours - theirs)) <= 1e-12 * largest


def test_a_network_of_every_operation_is_differentiated_inside_scan_and_vmap() -> None:
    parameters, images = network_parameters()
    batches = jnp.stack([images, -images, 2 * images])

    def steps(module: Any, images: jax.Array) -> Any:
        def step(parameters: Any, _: None) -> Any:
            loss, gradient = jax.value_and_grad(jax.checkpoint(partial(small_network, module)))(parameters, images)
            return jax.tree.map(lambda p, g: p - 0.1 * g, parameters, gradient), loss

        return jax.lax.scan(step, parameters, length=4)

    got = jax.jit(jax.vmap(partial(steps, jaxbn)))(batches)
    want = stacked([jax.jit(partial(steps, jaxbn.reference))(images) for images in batches])
    assert_close(got, want, 1e-11)
