"""What `Checkpoints` is given: directories that it cannot use, what is not JSON, and states of NumPy's arrays."""

import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from examples.trainer.tests.states import a_state, bits
from examples.trainer.training import CheckpointError, Checkpoints


@pytest.mark.parametrize("name", ["runs [1]", "every*", "what?", "back\\slash", "a[b/c"])
def test_a_directory_behind_which_orbax_would_lose_files_is_refused(tmp_path: Path, name: str) -> None:
    """It writes a checkpoint there and cannot read it: its pattern for the files begins with the directory."""
    message = f"{tmp_path / name} cannot be written to: Orbax loses files behind a "
    with pytest.raises(CheckpointError, match=re.escape(message)):
        Checkpoints(tmp_path / name, {})
    assert list(tmp_path.iterdir()) == []


def test_a_directory_with_the_name_of_a_checkpoint_is_refused(tmp_path: Path) -> None:
    """`load_checkpoint` would take it for one."""
    with pytest.raises(CheckpointError, match="save_1 is the name of a single checkpoint; their directory must have"):
        Checkpoints(tmp_path / "save_1", {})


def test_what_is_no_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="Checkpoints: `settings` must be JSON; Object of type PosixPath"):
        Checkpoints(tmp_path, {"data": Path("images.npz")})
    message = "save: `history` must be JSON; Object of type float32"
    with Checkpoints(tmp_path, {}) as checkpoints, pytest.raises(TypeError, match=message):
        checkpoints.save(a_state(0), [{"loss": np.float32(0.5)}])
    assert list(tmp_path.iterdir()) == []


def test_an_accuracy_that_is_nan_is_refused(tmp_path: Path) -> None:
    """No other would ever be better."""
    message = "save: `accuracy` is NaN; it must be a number, or None"
    with Checkpoints(tmp_path, {}) as checkpoints, pytest.raises(ValueError, match=message):
        checkpoints.save(a_state(0), [], accuracy=float("nan"))


def test_a_state_of_numpys_arrays_is_filled(tmp_path: Path) -> None:
    """As `start_state` has them where its parameters come from a file."""

    def in_numpy(params: Any) -> Any:
        return jax.tree.map(np.asarray, params)

    with Checkpoints(tmp_path, {}) as checkpoints:
        checkpoints.save(a_state(0)._replace(params=in_numpy(a_state(0).params)), [])
    like = a_state(1)._replace(params=in_numpy(a_state(1).params))
    with Checkpoints(tmp_path, {}) as checkpoints:
        assert bits(checkpoints.restore(like)[0]) == bits(a_state(0))


def test_a_directory_is_of_one_run_at_a_time(tmp_path: Path) -> None:
    with Checkpoints(tmp_path, {}) as checkpoints:
        checkpoints.save(a_state(0), [])
        with pytest.raises(CheckpointError, match=f"{re.escape(str(tmp_path))} is in use by another run; each has a"):
            Checkpoints(tmp_path, {})
    abandoned = Checkpoints(tmp_path, {})
    del abandoned  # its directory is free as well
    with Checkpoints(tmp_path, {}) as checkpoints:
        assert bits(checkpoints.restore(a_state(1))[0]) == bits(a_state(0))
