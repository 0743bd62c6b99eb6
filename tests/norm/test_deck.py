"""Batch norm against the deck's literal sums."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbn
from jaxbn import derivation
from tests.support.compare import assert_close

NORMAL = np.random.default_rng(0).normal


@pytest.mark.parametrize("shape", [(3, 2, 4, 5), (2, 3, 1, 1), (1, 2, 3, 1)])
def test_batch_norm(shape: tuple[int, ...]) -> None:
    """D13, D14 and the sum of D16's three terms, channels first as in the deck."""
    channels = shape[1]
    x, gamma, beta, dy = NORMAL(size=shape), NORMAL(size=channels), NORMAL(size=channels), NORMAL(size=shape)
    y, vjp = jax.vjp(
        lambda *arrays: jaxbn.batch_norm(*arrays, axis=1, epsilon=1e-3)[0],
        *(jnp.asarray(array) for array in (x, gamma, beta)),
    )
    dx, dgamma, dbeta = vjp(jnp.asarray(dy))
    assert_close(y, derivation.batch_norm(x, gamma, beta, 1e-3), 1e-12)
    tolerance = 1e-9 if x.size == 2 * channels else 1e-12
    assert_close(dx, derivation.batch_norm_input_gradient(x, gamma, dy, 1e-3).total, tolerance)
    assert_close(dgamma, derivation.batch_norm_gamma_gradient(x, dy, 1e-3), 1e-12)
    assert_close(dbeta, derivation.batch_norm_beta_gradient(dy), 1e-12)
