"""Bytes that the fused operations keep between forward and backward pass, and temporaries of the compiled program."""

from functools import partial
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbn
from jaxbn.testing import SavedBytes, saved_bytes

pytestmark = pytest.mark.optimised


@pytest.mark.parametrize("masked", [False, True])
def test_batch_norm_relu_adds_four_vectors(masked: bool) -> None:
    x, vector = jnp.ones((8, 6, 5, 7), jnp.float32), jnp.ones(7, jnp.float32)
    where = jnp.ones((8, 6, 5, 1), bool) if masked else None
    function = partial(jaxbn.batch_norm_relu, where=where)
    inputs = x.nbytes + 2 * vector.nbytes + (0 if where is None else where.nbytes)
    assert saved_bytes(function, x, vector, vector) == SavedBytes(inputs, 4 * vector.nbytes)


def test_batch_norm_relu_conv_adds_four_vectors() -> None:
    x, vector, kernel = jnp.ones((8, 6, 5, 7)), jnp.ones(7), jnp.ones((3, 3, 7, 4))
    bias = jnp.ones(4)
    arrays = (x, vector, vector, kernel, bias)
    counts = 7 * (3 * 8 + 4)  # three vectors of float64, one of int32
    assert saved_bytes(jaxbn.batch_norm_relu_conv, *arrays) == SavedBytes(sum(array.nbytes for array in arrays), counts)


LAYERS, SHAPE = 12, (16, 16, 16, 32)


LAYERS, SHAPE = 12, (16, 16, 16, 32)


ACTIVATION = 4 * 16 * 16 * 16 * 32


def chain(module: ModuleType, parameters: Any, x: jax.Array) -> jax.Array:
    for gamma, beta, kernel in zip(*parameters, strict=True):
        x, _ = module.batch_norm_relu_conv(x, gamma, beta, kernel, padding="SAME")
    return jnp.mean(x * x)


def parameters() -> Any:
    generator = np.random.default_rng(0)
    kernels = [jnp.asarray(0.1 * generator.normal(size=(3, 3, 32, 32)), jnp.float32) for _ in range(LAYERS)]
    return [jnp.ones(32, jnp.float32)] * LAYERS, [jnp.zeros(32, jnp.float32)] * LAYERS, kernels


def test_a_chain_keeps_one_activation_a_layer() -> None:
    x = jnp.ones(SHAPE, jnp.float32)
    own = ACTIVATION  # what the loss keeps
    ours = sum(saved_bytes(partial(chain, jaxbn), parameters(), x)) - own
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(parameters()))
    plain = sum(saved_bytes(partial(chain, jaxbn.reference), parameters(), x)) - own
    assert (ours - weights) / ACTIVATION / LAYERS <= 1.1
    assert (plain - weights) / ACTIVATION / LAYERS >= 4


def test_the_compiled_chain_needs_less_memory() -> None:
    """XLA does not undo the recomputation, under the scheduler that does not trade memory for concurrency."""

    def temporaries(module: ModuleType) -> int:
        gradient = jax.jit(jax.grad(partial(chain, module), (0, 1)))
        options: Any = {"xla_cpu_enable_concurrency_optimized_scheduler": False}
        compiled = gradient.lower(parameters(), jnp.ones(SHAPE, jnp.float32)).compile(compiler_options=options)
        analysis: Any = compiled.memory_analysis()
        return analysis.temp_size_in_bytes

    assert temporaries(jaxbn) <= 0.4 * temporaries(jaxbn.reference)
