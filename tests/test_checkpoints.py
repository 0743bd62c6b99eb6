"""Checkpoints of a run: what is saved is what is loaded, or nothing is."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest

from jaxbn.training import Checkpoints
from tests.states import a_state, bits

SETTINGS = {"features": [4], "classes": 10, "rate": 0.1, "data": None}
HISTORY = [{"epoch": 1, "train": {"loss": 0.1 + 0.2, "accuracy": [0.5, 1 / 3]}, "test": float("nan")}]


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
