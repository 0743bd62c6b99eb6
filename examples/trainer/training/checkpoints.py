"""Checkpoints of a training run, written by Orbax beside the training.

A directory holds ``save_0``, ``save_1``, …, each a `Checkpoint`. A save is written under another name and renamed when
all of it is there, so that at any moment the last one is whole. Public:

    Checkpoints(directory, settings)             of a run: `restore`, `save`
    load_checkpoint(path, best=False)            one of any run: a `Checkpoint` with `.settings`, `.history`, `.step`;
                                                 `.into(state)` is the state as it was saved
"""

import json
import math
import os
import re
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
import numpy as np
from jax.experimental import multihost_utils

from .saved import (
    CheckpointError,
    Content,
    arrays_of,
    digest,
    is_of_a_save,
    names_of,
    newest,
    orbax_files,
    reason,
    saves,
)
from .state import TrainState

LAST = 3  # so many are kept, and the best besides

# Orbax looks for what it has just written by a pattern that begins with the directory's own path.
_LOSING = re.compile(r"[*?\[\\]")


class Checkpoints:
    """The checkpoints of one run, in a directory of their own.

    The last three are kept, the one of the best test accuracy, and whatever was found damaged. Of several processes
    each must make the same calls, and all must see the same directory.

    Args:
        directory: Made if need be; otherwise empty, or with checkpoints in it.
        settings: What must be the same whenever the run goes on, as JSON has it.

    Attributes:
        resumed: The checkpoint that `restore` has loaded; None if there was none.
        last: The newest that is known to be whole: the one that was resumed, or the last that `wait` has seen written.
        damaged: What is wrong with each newer one, in a line that names it.

    Raises:
        CheckpointError: the directory is a file, holds something else, cannot be written to, is another run's at this
            moment, or has a name that will not do: that of a save in it, or one with any of ``*?[\\`` in its path,
            behind which Orbax loses files.
        TypeError: `settings` are not JSON.
        ImportError: Orbax is not installed.

    Example:
        >>> import tempfile, optax
        >>> from examples.trainer import training
        >>> from jaxbn import cnn
        >>> state = training.create_train_state(jax.random.key(0), cnn.CNNConfig(features=(4,)), optax.adam(1e-3))
        >>> with Checkpoints(tempfile.mkdtemp(), {"features": [4], "seed": 0}) as checkpoints:
        ...     state, history = checkpoints.restore(state)
        ...     path = checkpoints.save(state, history)
    """

    def __init__(self, directory: str | Path, settings: Mapping[str, Any]):
        self.resumed: Path | None = None
        self.last: Path | None = None
        self.damaged: list[str] = []
        self._directory, self._settings = Path(directory), _as_json("Checkpoints", "settings", dict(settings))
        self._kept: set[int] = set()  # those that are damaged
        self._best: int | None = None
        self._best_accuracy: float | None = None
        self._writing: Content | None = None
        _make_directory(self._directory)
        self._unlock = _locked(self, self._directory)
        self._next = max(saves(self._directory), default=-1) + 1
        self._may_save = self._next == 0
        self._writer = orbax_files("Checkpoints").Writer(self._directory, LAST)

    def restore(self, state: TrainState) -> tuple[TrainState, list[dict[str, Any]]]:
        """The newest checkpoint that is whole, which must be of a run of the same settings.

        Args:
            state: The run's first one. What is restored lies on the devices that it lies on.

        Returns:
            The saved state and its history; the given state and an empty history where there is no checkpoint.

        Raises:
            CheckpointError: the settings or the state are other ones, or all checkpoints are damaged.
        """
        checkpoint = newest(self._directory)
        _check_processes_agree(self._directory, checkpoint.step if checkpoint else -1)
        self._may_save = True
        if checkpoint is None:
            return state, []
        self.damaged = list(checkpoint.damaged.values())
        self._check_settings(checkpoint.path, checkpoint.settings)
        surplus = checkpoint.arrays.keys() - names_of(state)
        if surplus:
            raise CheckpointError(f"{checkpoint.path}: it has {min(surplus)}, and the run has not")
        content = checkpoint.content
        self._best, self._best_accuracy = content.best, content.best_accuracy
        self._kept = {*content.damaged, *checkpoint.damaged}
        self.resumed = self.last = checkpoint.path
        return checkpoint.into(state), checkpoint.history

    def save(self, state: TrainState, history: Sequence[Mapping[str, Any]], *, accuracy: float | None = None) -> Path:
        """Begin to write a checkpoint, once the one before is written.

        Args:
            state: It is copied before this returns.
            history: What else to keep of the run, such as the metrics of each epoch, as JSON has it.
            accuracy: On the test images, if they have just been evaluated.

        Returns:
            Where the checkpoint will be.

        Raises:
            CheckpointError: the save before this one, or the beginning of this one, has failed. The checkpoints that
                were there are still there.
            TypeError: `history` is not JSON.
            ValueError: there are checkpoints already, and `restore` has not been called; `accuracy` is NaN.
        """
        if accuracy is not None and math.isnan(accuracy):
            raise ValueError("save: `accuracy` is NaN; it must be a number, or None")
        if not self._may_save:
            raise ValueError(f"save: {self._directory} has checkpoints already; `restore` must come first")
        rows = _as_json("save", "history", list(history))
        self.wait()
        best, best_accuracy = self._best, self._best_accuracy
        if accuracy is not None and (best_accuracy is None or accuracy >= best_accuracy):
            best, best_accuracy = self._next, float(accuracy)
        arrays, keys = arrays_of(state)
        step = int(arrays["step"].max())
        kept = sorted(self._kept)
        content = Content(self._settings, rows, step, best, best_accuracy, kept, keys)
        sealed = content._asdict() | {"SHA-256": digest(content._asdict(), arrays)}
        self._writing = content
        try:
            self._writer.begin(self._next, sealed, arrays, best, self._kept)
        except Exception as error:
            raise self._failed(error) from error
        return self._path(self._next)

    def wait(self) -> None:
        """Wait until the last save is written.

        Raises:
            CheckpointError: it has failed.
            JaxRuntimeError: it has failed because another process is gone.
        """
        try:
            self._writer.wait()
        except Exception as error:
            raise self._failed(error) from error
        if self._writing is not None:
            self._best, self._best_accuracy = self._writing.best, self._writing.best_accuracy
            self.last, self._writing = self._path(self._next), None
            self._next += 1

    def _failed(self, error: Exception) -> Exception:
        failed, self._writing = self._path(self._next), None
        self._next += 1  # what has been written of it stays out of the next one's way
        if isinstance(error, jax.errors.JaxRuntimeError):  # no fault of the files: another process is gone
            return error
        return CheckpointError(f"{failed} cannot be written ({reason(error)})")

    def _path(self, number: int) -> Path:
        return self._directory / f"save_{number}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        """Waits for the last save. Its failure is raised, or noted on the exception that is leaving already."""
        try:
            self.wait()
        except CheckpointError as failure:
            if error is None:
                raise
            error.add_note(str(failure))
        finally:
            self._writer.close()
            self._unlock()

    def _check_settings(self, path: Path, there: dict[str, Any]) -> None:
        unset = "unset"
        differing = [
            f"{name} is {there.get(name, unset)} there and {self._settings.get(name, unset)} here"
            for name in sorted(there.keys() | self._settings.keys())
            if there.get(name, unset) != self._settings.get(name, unset)
        ]
        if differing:
            raise CheckpointError(f"{path} is of a run with other settings: {'; '.join(differing)}")


def _make_directory(directory: Path) -> None:
    if is_of_a_save(directory):
        raise CheckpointError(f"{directory} is the name of a single checkpoint; their directory must have another one")
    if lost := _LOSING.search(str(directory.absolute())):
        raise CheckpointError(f"{directory} cannot be written to: Orbax loses files behind a {lost[0]} in the path")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        names = [each.name for each in directory.iterdir() if not each.name.startswith(".")]
    except OSError as error:
        raise CheckpointError(f"{directory}: {error.strerror}") from error
    if names and not any(name.startswith("save_") for name in names):
        raise CheckpointError(f"{directory} is no directory of checkpoints: {min(names)} is in it, and no save_0")
    effective = os.access in os.supports_effective_ids
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK, effective_ids=effective):
        raise CheckpointError(f"{directory} cannot be written to")


def _locked(checkpoints: Checkpoints, directory: Path) -> Callable[[], object]:
    """Keeps other runs out for as long as the checkpoints are in use, or until what is returned is called.

    Two runs in one directory would remove each other's files. A process that is killed leaves no lock behind.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return lambda: None
    if jax.process_index() > 0:
        return lambda: None
    held = os.open(directory, os.O_RDONLY)
    unlock = weakref.finalize(checkpoints, os.close, held)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        unlock()
        raise CheckpointError(f"{directory} is in use by another run; each has a directory of its own") from error
    except OSError:  # a file system without locks
        pass
    return unlock


def _check_processes_agree(directory: Path, step: int) -> None:
    if jax.process_count() > 1:
        steps = multihost_utils.process_allgather(np.int32(step))
        if steps.min() != steps.max():
            raise CheckpointError(f"{directory}: the processes do not see the same checkpoints there")


def _as_json(function: str, argument: str, value: Any) -> Any:
    """The value as it will be read: lists for tuples."""
    try:
        return json.loads(json.dumps(value))
    except TypeError as error:
        raise TypeError(f"{function}: `{argument}` must be JSON; {error}") from error
