"""A whole ResNet in forward mode: its directional derivative and its neural tangent kernel are the reference's."""

from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbn
from benchmarks import resnet
from tests.support.compare import Function, assert_close

OPERATIONS = [name for name, value in vars(resnet).items() if callable(value) and value is getattr(jaxbn, name, None)]
"""What the benchmark's network is made of."""


def in_forward_mode(name: str) -> Callable[..., Any]:
    operation = getattr(jaxbn, name)
    return partial(operation, forward_mode=True) if "forward_mode" in signature(operation).parameters else operation


def of_reference(name: str) -> Callable[..., Any]:
    return getattr(jaxbn.reference, name, getattr(jaxbn, name))


@pytest.fixture(autouse=True)
def small_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block with the identity beside it, and two that change the size of the image and the number of channels."""
    monkeypatch.setattr(resnet, "WIDTHS", (2, 3, 4))
    monkeypatch.setattr(resnet, "BLOCKS", 1)


def network(monkeypatch: pytest.MonkeyPatch, operation: Callable[[str], Any], images: jax.Array) -> Function:
    """The logits of the images as a function of the parameters, with these operations."""
    _, running = resnet.init(jax.random.key(0))

    def logits(params: Any) -> jax.Array:
        with monkeypatch.context() as patch, jax.numpy_rank_promotion("allow"):
            for name in OPERATIONS:
                patch.setattr(resnet, name, operation(name))
            return resnet.apply(params, running, images)[0]

    return logits


def tangent_kernel(function: Function, params: Any) -> jax.Array:
    """The products of the gradients of every two logits, ``J Jᵀ``."""
    logits, vjp = jax.vjp(function, params)
    jvp = jax.linearize(function, params)[1]
    columns = jax.lax.map(lambda dy: jvp(*vjp(dy.reshape(logits.shape))), jnp.eye(logits.size))
    return columns.reshape(logits.size, logits.size)


def test_a_whole_network(monkeypatch: pytest.MonkeyPatch) -> None:
    params, _ = resnet.init(jax.random.key(0))
    generator = np.random.default_rng(0)
    params, tangents = (
        jax.tree.map(lambda leaf, size=size: leaf + size * generator.normal(size=leaf.shape), params)
        for size in (0.1, 1.0)
    )
    images = jnp.asarray(generator.normal(size=(2, 16, 16, 3)))

    def compute(operation: Callable[[str], Any]) -> Any:
        function = network(monkeypatch, operation, images)
        along = jax.jvp(function, [params], [tangents])
        kernel = tangent_kernel(lambda params: function(params)[:, :3], params)
        return along, kernel

    assert len(OPERATIONS) >= 3
    got, want = (jax.jit(partial(compute, each))() for each in (in_forward_mode, of_reference))
    assert_close(got, want, 1e-10)
