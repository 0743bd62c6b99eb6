"""One checkpoint: what is in it, and how it is known to be whole.

``save_N/content`` is JSON: the run's settings, its history and its step, and the SHA-256 of that and of all arrays.
``save_N/state`` has the arrays, which Orbax writes and reads. Whatever a damage does to either, what is read is bit for
bit what was saved, or has another SHA-256.
"""

import hashlib
import json
import os
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

State = TypeVar("State")


class CheckpointError(Exception):
    """A checkpoint cannot be written, read or gone on from; the message is one line that names it and says why."""


class Content(NamedTuple):
    """What is saved beside the arrays, as JSON."""

    settings: dict[str, Any]
    history: list[dict[str, Any]]
    step: int  # how many batches the run had taken
    best: int | None  # the number of the save of the best test accuracy up to this one
    best_accuracy: float | None
    damaged: list[int]  # the numbers of the saves before this one that were found damaged
    keys: dict[str, str]  # of each array that is a random key's data, the key's kind


class Checkpoint(NamedTuple):
    """What was saved."""

    path: Path
    content: Content
    arrays: dict[str, np.ndarray]  # by their path in the state, such as ``params.blocks[0].kernel``
    damaged: dict[int, str]  # what is wrong with each newer save, by its number

    @property
    def settings(self) -> dict[str, Any]:
        return self.content.settings

    @property
    def history(self) -> list[dict[str, Any]]:
        return self.content.history

    @property
    def step(self) -> int:
        return self.content.step

    def into(self, state: State) -> State:
        """The saved arrays in the place of the state's, on the devices where those lie.

        Args:
            state: Such as the `TrainState` of the same network. What it lacks is left out: created with
                ``optax.identity()`` it takes a network without its optimizer's state.

        Returns:
            The state as it was saved.

        Raises:
            CheckpointError: an array of the state was not saved, or is of another shape or dtype.
        """
        return jax.tree.map_with_path(self._placed, state)

    def _placed(self, path: Any, like: jax.Array) -> jax.Array:
        name = _name(path)
        if name not in self.arrays:
            raise CheckpointError(f"{self.path}: it has no {name}")
        array, data = self.arrays[name], _data(like)
        came, wanted = _kind(array, self.content.keys.get(name)), _kind(data, _key_kind(like))
        if came != wanted:
            raise CheckpointError(f"{self.path}: {name} is {came}, and {wanted} is wanted")
        if isinstance(data, jax.Array) and data.committed:  # to one device or, with its copies, to many
            data = jax.make_array_from_callback(array.shape, data.sharding, lambda index: array[index])
        else:
            data = jnp.array(array)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(like)) if _key_kind(like) else data


def load_checkpoint(path: str | Path, *, best: bool = False) -> Checkpoint:
    """A checkpoint, without knowing anything of the run.

    Args:
        path: A directory of `Checkpoints`, for the newest one that is whole; or one of the saves in it.
        best: Whether to load the directory's one of the best test accuracy in the place of the newest.

    Returns:
        The `Checkpoint`: its path, settings, history, step and arrays, and what is wrong with those that are newer.

    Raises:
        CheckpointError: there is none, or it is damaged.

    Example:
        >>> import tempfile, optax
        >>> from examples.trainer import training
        >>> from jaxbn import cnn
        >>> state = training.create_train_state(jax.random.key(0), cnn.CNNConfig(features=(4,)), optax.adam(1e-3))
        >>> with training.Checkpoints(tempfile.mkdtemp(), {"features": [4]}) as checkpoints:
        ...     path = checkpoints.save(state, [])
        >>> load_checkpoint(path).settings
        {'features': [4]}
    """
    path = Path(path)
    if is_of_a_save(path):
        return read(path)
    checkpoint = newest(path)
    if checkpoint is None:
        raise CheckpointError(f"{path}: no checkpoint is in it")
    if best and checkpoint.content.best is not None:
        return read(path / f"save_{checkpoint.content.best}")._replace(damaged=checkpoint.damaged)
    return checkpoint


def newest(directory: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole; None if there is none at all."""
    damaged = {}
    for number in reversed(saves(directory)):
        try:
            return read(directory / f"save_{number}")._replace(damaged=damaged)
        except CheckpointError as error:
            damaged[number] = str(error)
    if damaged:
        raise CheckpointError("; ".join(damaged.values()))
    return None


def saves(directory: Path) -> list[int]:
    """The numbers of the saves in a directory."""
    try:
        return sorted(number for each in directory.iterdir() if (number := _number(each)) is not None)
    except OSError as error:
        raise CheckpointError(f"{directory}: {error.strerror}") from error


def read(path: Path) -> Checkpoint:
    """A checkpoint, if it is whole."""
    files, part = orbax_files("load_checkpoint"), "content"
    try:
        content = json.loads((path / part / "metadata").read_text(encoding="utf-8"))
        part = "state"
        arrays = files.read_arrays(path / part)
        part = "SHA-256"
        if content.pop(part) != digest(content, arrays):
            raise ValueError("it is not what was saved")
        return Checkpoint(path, Content(**content), arrays, {})
    except Exception as error:  # whatever a damaged file makes of JSON, Orbax and TensorStore
        raise CheckpointError(f"{path} is damaged ({part}: {reason(error)})") from error


def arrays_of(state: Any) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Copies of a state's arrays on the host, a random key's as integers, and of those the kind of key."""
    leaves = {_name(path): leaf for path, leaf in jax.tree.leaves_with_path(state)}
    keys = {name: kind for name, leaf in leaves.items() if (kind := _key_kind(leaf))}
    return {name: np.array(_data(leaf)) for name, leaf in leaves.items()}, keys


def names_of(state: Any) -> set[str]:
    """What the arrays of a state are called."""
    return {_name(path) for path, _ in jax.tree.leaves_with_path(state)}


def digest(content: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """The SHA-256 of the JSON and of each array's path, dtype, shape and bytes."""
    sha256 = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        sha256.update(f"\n{name} {_kind(array, None)}\n".encode())
        sha256.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return sha256.hexdigest()


def reason(error: BaseException) -> str:
    """What went wrong, in a few words."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if number := re.search(r"os_error_code='(\d+)'", str(error)):  # TensorStore's
        return os.strerror(int(number[1]))
    text = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
    return textwrap.shorten(text, 100, placeholder="…")


def orbax_files(function: str):
    """The module that imports Orbax, which the rest of the package can do without."""
    try:
        from . import orbax_files
    except ImportError as error:
        raise ImportError(f'{function} needs Orbax: python -m pip install "jaxbn[examples]"') from error
    return orbax_files


def is_of_a_save(path: Path) -> bool:
    """Whether it is called as a checkpoint is, and not as a directory of them."""
    return _number(path) is not None


def _number(path: Path) -> int | None:
    found = re.fullmatch(r"save_(\d+)", path.name)
    return int(found[1]) if found else None


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path).removeprefix(".")


def _key_kind(leaf: jax.Array) -> str | None:
    """The kind of a random key; None for other arrays."""
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return str(jax.random.key_impl(leaf)) if is_key else None


def _data(leaf: jax.Array) -> jax.Array:
    return jax.random.key_data(leaf) if _key_kind(leaf) else leaf


def _kind(array: np.ndarray | jax.Array, key: str | None) -> str:
    of_keys = f", of {key} keys" if key else ""
    return f"{array.dtype.name}[{', '.join(map(str, array.shape))}]{of_keys}"
