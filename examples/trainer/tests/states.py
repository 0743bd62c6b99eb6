"""States to be saved, made of random bits, and how they are compared: bit for bit."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from examples.trainer.training import Metrics, TrainState
from examples.trainer.training.state import EpochMean


def a_state(seed: int, *, members: int = 0, dtype: Any = jnp.float32) -> TrainState:
    """A state of random bits, NaN and infinity among them, with a random key of its own in the optimizer's state."""
    rng = np.random.default_rng(seed)
    shape = (members,) if members else ()
    key = jax.random.key(seed, impl="rbg")

    def array(*sides: int, dtype: Any = jnp.float32) -> jax.Array:
        drawn = rng.integers(0, 256, (*shape, *sides, jnp.dtype(dtype).itemsize), np.uint8)
        return jnp.asarray(drawn.view(dtype)[..., 0])

    return TrainState(
        params={"kernel": array(3, 3, 4, 8, dtype=dtype), "bias": array(2)},
        running=[array(2)],
        opt_state=(
            optax.EmptyState(),
            {"μ": [array(3, 3, 4, 8, dtype=dtype)], "key": jax.random.key(seed), "none": None},
        ),
        step=jnp.full(shape, seed, jnp.int32),
        key=jax.random.split(key, members) if members else key,
        skipped=array(dtype=jnp.int32),
        epoch=EpochMean(Metrics(array(), array()), array(dtype=jnp.int32)),
    )


def bits(state: Any) -> Any:
    """The state with the dtype, the shape and the bytes of each array in its place."""

    def of(leaf: jax.Array) -> tuple[str, tuple[int, ...], bytes]:
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return str(leaf.dtype), leaf.shape, np.asarray(jax.random.key_data(leaf) if is_key else leaf).tobytes()

    return jax.tree.map(of, state)
