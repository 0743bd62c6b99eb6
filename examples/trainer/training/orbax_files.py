"""What Orbax writes and reads: the one file that imports it."""

import asyncio
import logging
import os
import shutil
import threading
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import handlers, type_handlers
from orbax.checkpoint.checkpoint_managers import PreservationContext

# Old checkpoints are moved here before they are removed, so that none is ever there by half. By its ending Orbax knows
# what a process has left that was killed, and cleans it up.
_REMOVED = "removed.orbax-checkpoint-tmp"
_PATIENCE = 10.0  # seconds for what still writes when a save has failed; it may wait for a process that is gone


def _is_of_others(record: logging.LogRecord) -> bool:
    return "orbax" not in record.pathname


# What Orbax logs of a failure, tracebacks and all, is raised as well.
logging.getLogger("absl").addFilter(_is_of_others)


class Writer:
    """Writes checkpoints in the background, one after the other.

    Args:
        directory: There already.
        last: How many of the last ones are kept.
    """

    def __init__(self, directory: Path, last: int):
        self._directory, self._preserved = directory.absolute(), _Preserved(last)
        self._manager: ocp.CheckpointManager | None = None
        self._open()

    def begin(
        self, number: int, content: dict[str, Any], arrays: dict[str, np.ndarray], best: int | None, damaged: set[int]
    ) -> None:
        """Begin to write a checkpoint, then to remove those that are not kept."""
        self._preserved.best, self._preserved.damaged = best, damaged
        parts = ocp.args.Composite(state=ocp.args.PyTreeSave(arrays), content=ocp.args.JsonSave(content))
        try:
            self._open().save(number, args=parts, force=True)
        except Exception:
            self._abandon()
            raise
        self._begun = True

    def wait(self) -> None:
        """Wait until it is written; raises what went wrong."""
        if self._manager is None:
            return
        try:
            self._manager.wait_until_finished()
        except Exception:
            self._abandon()
            raise
        if self._begun and jax.process_index() == 0:  # before that Orbax may still be cleaning up
            shutil.rmtree(self._directory / _REMOVED, ignore_errors=True)

    def close(self) -> None:
        if self._manager is not None:
            self._manager.close()

    def _abandon(self) -> None:
        """Of several failures each call of a manager raises one, while some of its threads still write: this waits for
        those, and drops the manager."""
        manager, self._manager = self._manager, None
        for _ in range(5):
            with suppress(Exception):
                if manager is not None:
                    manager.close()
                break
        until = time.monotonic() + _PATIENCE
        for thread in threading.enumerate():
            if type(thread).__module__.startswith("orbax."):
                with suppress(Exception):  # its own
                    thread.join(max(0.0, until - time.monotonic()))

    def _open(self) -> ocp.CheckpointManager:
        if self._manager is None:
            self._begun = False
            registry = handlers.DefaultCheckpointHandlerRegistry()
            registry.add("state", ocp.args.PyTreeSave, _handler())
            registry.add("content", ocp.args.JsonSave, ocp.JsonCheckpointHandler())
            options = ocp.CheckpointManagerOptions(
                step_prefix="save",
                preservation_policy=self._preserved,
                temporary_path_class=_Synced,
                cleanup_tmp_directories=True,  # of a save that was killed
                lightweight_initialize=True,  # reads nothing that may be damaged
                todelete_subdir=_REMOVED,
                # Were they made in the background, a failure would leave threads that wait for them.
                async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
            )
            self._manager = ocp.CheckpointManager(self._directory, options=options, handler_registry=registry)
        return self._manager


class _Preserved:
    """Which checkpoints are not removed; a `PreservationPolicy`."""

    def __init__(self, last: int):
        self.last = last
        self.best: int | None = None
        self.damaged: set[int] = set()

    def should_preserve(self, checkpoints: Sequence[Any], *, context: PreservationContext) -> list[bool]:
        whole = [each.step for each in checkpoints if each.step not in self.damaged]
        return [each.step in {*whole[-self.last :], self.best, *self.damaged} for each in checkpoints]


class _Synced(ocp.path.atomicity.AtomicRenameTemporaryPath):
    """A save that is on the disk before it gets its name, and its name before Orbax removes an older save.

    Without that a power cut could damage the newest saves together, those that the kernel has not written yet.
    """

    async def finalize(self) -> None:
        temporary, final = Path(self.get()), Path(self.get_final())
        await asyncio.to_thread(_sync_tree, temporary)
        await super().finalize()
        await asyncio.to_thread(_sync_tree, final)  # with the marks that Orbax adds when it renames
        await asyncio.to_thread(_sync, final.parent)


def _sync_tree(directory: Path) -> None:
    for parent, _, files in os.walk(directory, topdown=False):
        for path in (*(Path(parent, name) for name in files), Path(parent)):
            _sync(path)


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a directory, are on the disk."""
    if os.name == "nt" and path.is_dir():  # Windows opens no directories, and its file systems log what they rename
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)  # Windows syncs what is open for writing
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _Arrays(type_handlers.NumpyHandler):
    """Leaves nothing unfinished when something fails. Orbax stops at the first failure, and whatever is still being
    read or written then finds its event loop closed and prints a traceback."""

    async def deserialize(self, infos, args=None):
        read, args = super().deserialize, args or [ocp.RestoreArgs()] * len(infos)
        return [(await read([info], [arg]))[0] for info, arg in zip(infos, args, strict=True)]

    async def _background_serialize(self, values, infos, args=None):
        self._failed: list[Exception] = []
        await super()._background_serialize(values, infos, args)
        if self._failed:
            raise self._failed[0]

    async def _open_and_write(self, value, tspec, ts_context):
        try:
            await super()._open_and_write(value, tspec, ts_context)
        except Exception as error:
            self._failed.append(error)


def _handler() -> ocp.PyTreeCheckpointHandler:
    types = type_handlers.create_type_handler_registry((np.ndarray, _Arrays(deepcopy_host_arrays=False)))
    return ocp.PyTreeCheckpointHandler(type_handler_registry=types)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint's state, without waiting for other processes, which may not find it."""
    with closing(_handler()) as handler:
        return handler.restore(epath.Path(path.absolute()))
