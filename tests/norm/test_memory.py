"""Bytes that batch norm keeps between forward and backward pass."""

from functools import partial

import jax.numpy as jnp
import pytest

import jaxbn
from jaxbn.testing import SavedBytes, saved_bytes


@pytest.mark.parametrize("masked", [False, True])
def test_batch_norm_adds_four_vectors(masked: bool) -> None:
    x, vector = jnp.ones((8, 6, 5, 7), jnp.float32), jnp.ones(7, jnp.float32)
    where = jnp.ones((8, 6, 5, 1), bool) if masked else None
    function = partial(jaxbn.batch_norm, where=where)
    inputs = x.nbytes + 2 * vector.nbytes + (0 if where is None else where.nbytes)
    assert saved_bytes(function, x, vector, vector) == SavedBytes(inputs, 4 * vector.nbytes)
