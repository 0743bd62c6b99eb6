"""Bytes kept between forward and backward, and temporaries of the compiled program."""

from functools import partial
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbn
from jaxbn.testing import SavedBytes, saved_bytes

N = 1000
X = jnp.ones(N, jnp.float32)


def test_an_argument_is_an_input_and_counted_once() -> None:
    assert saved_bytes(lambda x, w: (x * w, x * x, w * x), X, X) == SavedBytes(2 * 4 * N, 0)
    assert saved_bytes(lambda tree: tree["a"] * tree["b"][0], {"a": X, "b": [X]}) == SavedBytes(8 * N, 0)


def test_what_is_linear_keeps_nothing() -> None:
    assert saved_bytes(lambda x: 3 * x + x[::-1], X) == SavedBytes(0, 0)


def test_an_array_that_is_closed_over_is_an_input() -> None:
    scale = jnp.arange(N, dtype=jnp.float32)
    assert saved_bytes(lambda x: x * scale, X) == SavedBytes(4 * N, 0)


def test_what_is_computed_is_added_in_its_own_width() -> None:
    assert saved_bytes(jnp.sin, X) == SavedBytes(0, 4 * N)
    assert saved_bytes(jnp.sin, X.astype(jnp.bfloat16)) == SavedBytes(0, 2 * N)
    assert saved_bytes(jnp.sin, jax.ShapeDtypeStruct((N,), jnp.float64)) == SavedBytes(0, 8 * N)


def test_the_same_array_kept_twice_is_counted_once() -> None:
    @jax.custom_vjp
    def twice(x: jax.Array) -> jax.Array:
        return x * x

    def forward(x: jax.Array) -> Any:
        y = x * x
        return y, (x, y, x, y)

    twice.defvjp(forward, lambda residuals, dy: (dy * sum(residuals),))
    assert saved_bytes(twice, X) == SavedBytes(4 * N, 4 * N)
    assert saved_bytes(jax.jit(twice), X) == SavedBytes(4 * N, 4 * N)


def test_jit_is_seen_through() -> None:
    def product(x: jax.Array, w: jax.Array) -> jax.Array:
        return jnp.sin(x) * w

    plain = saved_bytes(product, X, X)
    assert plain == SavedBytes(4 * N, 8 * N)
    assert saved_bytes(jax.jit(product), X, X) == plain
    assert saved_bytes(jax.jit(lambda x, w: jax.jit(product)(x, w)), X, X) == plain


def test_scan_keeps_every_step_and_checkpoint_the_arguments() -> None:
    def steps(x: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda carry, _: (jnp.sin(carry), None), x, length=5)[0]

    assert saved_bytes(steps, X) == SavedBytes(0, 5 * 4 * N)
    assert saved_bytes(jax.checkpoint(steps), X) == SavedBytes(4 * N, 0)


@pytest.mark.parametrize("operation", ["batch_norm", "batch_norm_relu"])
@pytest.mark.parametrize("masked", [False, True])
def test_batch_norm_adds_four_vectors(operation: str, masked: bool) -> None:
    x, vector = jnp.ones((8, 6, 5, 7), jnp.float32), jnp.ones(7, jnp.float32)
    where = jnp.ones((8, 6, 5, 1), bool) if masked else None
    function = partial(getattr(jaxbn, operation), where=where)
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
