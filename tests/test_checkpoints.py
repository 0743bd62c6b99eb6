"""Checkpoints of a run: what is saved is what is loaded, or nothing is."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxbn.training import Checkpoints, Metrics, TrainState
from jaxbn.training.state import EpochMean

SETTINGS = {"features": [4], "classes": 10, "rate": 0.1, "data": None}
HISTORY = [{"epoch": 1, "train": {"loss": 0.1 + 0.2, "accuracy": [0.5, 1 / 3]}, "test": float("nan")}]


def a_state(seed: int = 0, members: int = 0, dtype: Any = jnp.float32) -> TrainState:
    """A state of random numbers throughout, NaN, infinity and a key of its own in the optimizer among them."""
    rng = np.random.default_rng(seed)
    shape = (members,) if members else ()
    key = jax.random.key(seed, impl="rbg")

    def array(*sides: int, dtype: Any = jnp.float32) -> jax.Array:
        bits = rng.integers(0, 256, (*shape, *sides, jnp.dtype(dtype).itemsize), np.uint8)
        return jnp.asarray(bits.view(dtype)[..., 0])

    opt_state = (optax.EmptyState(), {"μ": [array(3, 2, dtype=dtype)], "key": jax.random.key(seed + 1), "none": None})
    return TrainState(
        {"kernel": array(3, 2, dtype=dtype), "bias": array(2)},
        [array(2, dtype=jnp.float64)],
        opt_state,
        jnp.full(shape, 7, jnp.int32),
        jax.random.split(key, members) if members else key,
        array(dtype=jnp.int32),
        EpochMean(Metrics(array(), array()), array(dtype=jnp.int32)),
    )


def bits(state: Any) -> Any:
    """A state as dtypes, shapes and bytes."""

    def of(leaf: jax.Array) -> tuple[str, tuple[int, ...], bytes]:
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return str(leaf.dtype), leaf.shape, np.asarray(jax.random.key_data(leaf)).tobytes()
        return str(leaf.dtype), leaf.shape, np.asarray(leaf).tobytes()

    return jax.tree.map(of, state)


def saved(directory: Path, *seeds: int, **options: Any) -> None:
    with Checkpoints(directory, SETTINGS) as checkpoints:
        for seed in seeds:
            checkpoints.save(a_state(seed, **options), [*HISTORY, {"seed": seed}])


@pytest.mark.parametrize("options", [{}, {"members": 3}, {"dtype": jnp.bfloat16}], ids=str)
def test_what_is_saved_is_restored(tmp_path: Path, options: dict[str, Any]) -> None:
    saved(tmp_path, 0, 1, **options)
    with Checkpoints(tmp_path, SETTINGS) as checkpoints:
        state, history = checkpoints.restore(a_state(5, **options))
    assert bits(state) == bits(a_state(1, **options))
    assert repr(history) == repr([*HISTORY, {"seed": 1}])
    assert checkpoints.resumed == tmp_path / "save_1"
    assert checkpoints.damaged == []
