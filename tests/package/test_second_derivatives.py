"""A network through every operation: its second derivatives, and its training inside `scan` and `vmap`."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbn
from tests.support.compare import Function, assert_close
from tests.support.transformations import stacked


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
