"""What the layers of every library need."""

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture(autouse=True)
def promotion_as_the_libraries_need_it() -> Iterator[None]:
    """They rely on JAX's promotion of dtypes and ranks, which the tests forbid elsewhere."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
