"""Bytes that the fused operations keep between forward and backward pass, and temporaries of the compiled program."""

from collections.abc import Callable
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
ACTIVATION = 4 * 16 * 16 * 16 * 32
BLOCKS = 8


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


def temporaries(function: Callable[..., Any], *operands: Any) -> int:
    """Bytes under the scheduler that does not trade memory for concurrency."""
    options: Any = {"xla_cpu_enable_concurrency_optimized_scheduler": False}
    analysis: Any = jax.jit(function).lower(*operands).compile(compiler_options=options).memory_analysis()
    return analysis.temp_size_in_bytes


def test_the_compiled_chain_needs_less_memory() -> None:
    """XLA does not undo the recomputation."""
    operands = parameters(), jnp.ones(SHAPE, jnp.float32)
    ours, plain = (jax.grad(partial(chain, module), (0, 1)) for module in (jaxbn, jaxbn.reference))
    assert temporaries(ours, *operands) <= 0.4 * temporaries(plain, *operands)


Block = Callable[[ModuleType, Any, Any, Any, jax.Array], jax.Array]
"""A basic block with two convolutions: a function of the module, the activation, each layer's parameters, and x."""


def post_activation_block(module: ModuleType, activation: Any, first: Any, second: Any, x: jax.Array) -> jax.Array:
    gamma, beta, kernel = first
    y = module.conv(x, kernel, padding="SAME")
    y, _ = module.batch_norm_act_conv(y, gamma, beta, activation, second[2], padding="SAME")
    y, _ = module.batch_norm_act(y, *second[:2], activation, residual=x)
    return y


def pre_activation_block(module: ModuleType, activation: Any, first: Any, second: Any, x: jax.Array) -> jax.Array:
    y = x
    for gamma, beta, kernel in (first, second):
        y, _ = module.batch_norm_act_conv(y, gamma, beta, activation, kernel, padding="SAME")
    return x + y


def chain_of_blocks(block: Block, activation: Any, module: ModuleType, parameters: Any, x: jax.Array) -> jax.Array:
    for first, second in parameters:
        x = block(module, activation, first, second, x)
    return jnp.mean(x * x)


def parameters_of_blocks() -> Any:
    layer = jnp.ones(32, jnp.float32), jnp.zeros(32, jnp.float32)
    kernels = jnp.asarray(0.1 * np.random.default_rng(0).normal(size=(BLOCKS, 2, 3, 3, 32, 32)), jnp.float32)
    return [[(*layer, kernel) for kernel in pair] for pair in kernels]


ACTIVATIONS = {"relu": jax.nn.relu, "silu": jax.nn.silu, "gelu": jax.nn.gelu, "leaky_relu": jax.nn.leaky_relu}


@pytest.mark.parametrize("activation", ACTIVATIONS.values(), ids=ACTIVATIONS)
@pytest.mark.parametrize(("block", "most"), [(post_activation_block, 1.6), (pre_activation_block, 1.15)])
def test_residual_blocks_keep_the_outputs_of_their_convolutions_and_their_own(
    block: Block, most: float, activation: Any
) -> None:
    loss = partial(chain_of_blocks, block, activation, jaxbn)
    kept = saved_bytes(loss, parameters_of_blocks(), jnp.ones(SHAPE, jnp.float32))
    assert kept.added / ACTIVATION / (2 * BLOCKS) <= most


@pytest.mark.parametrize(
    ("block", "activation", "most"),
    [
        (post_activation_block, jax.nn.relu, 0.45),
        (post_activation_block, jax.nn.silu, 0.55),
        (pre_activation_block, jax.nn.silu, 0.4),
    ],
)
def test_compiled_residual_blocks_need_less_memory(block: Block, activation: Any, most: float) -> None:
    operands = parameters_of_blocks(), jnp.ones(SHAPE, jnp.float32)
    losses = (partial(chain_of_blocks, block, activation, module) for module in (jaxbn, jaxbn.reference))
    ours, plain = (temporaries(jax.value_and_grad(loss, (0, 1)), *operands) for loss in losses)
    assert ours <= most * plain
