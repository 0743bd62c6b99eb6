"""A training step exported with a symbolic batch size gives the same numbers at every batch size."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import export

from jaxbn import cnn
from tests.support.compare import assert_close
from tests.support.symbolic_shapes import Case, concrete, symbolic


def test_a_step_of_training_of_any_batch() -> None:
    params, state = cnn.init(jax.random.key(0), cnn.CNNConfig(classes=3, in_channels=2, features=(4, 3), dtype="f8"))

    def step(images: jax.Array) -> Any:
        def loss(params: cnn.Params) -> Any:
            logits, new = cnn.apply(params, state, images, train=True)
            return jnp.mean(jnp.square(jnp.sin(logits))), new

        return jax.value_and_grad(loss, has_aux=True)(params)

    step = jax.jit(step)
    exported = export.export(step)(*symbolic("b, 6, 5, 2"))
    for sizes in Case("", ()).sizes:
        (images,) = concrete(symbolic("b, 6, 5, 2"), sizes)
        assert_close(jax.tree.leaves(exported.call(images)), jax.tree.leaves(step(images)), 1e-11)
