"""What Orbax writes and reads: the one file that imports it."""

import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
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


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Orbax's log: whatever goes wrong is raised as well."""

    def is_of_others(record: logging.LogRecord) -> bool:
        return "orbax" not in record.pathname

    logging.getLogger("absl").addFilter(is_of_others)
    try:
        yield
    finally:
        logging.getLogger("absl").removeFilter(is_of_others)


class Writer:
    """Writes checkpoints in the background, one after the other.

    Args:
        directory: There already.
        last: How many of the last ones are kept.
    """

    def __init__(self, directory: Path, last: int):
        self._preserved, self._open = _Preserved(last), ExitStack()
        self._open.enter_context(_quiet())
        self._begun = False
        registry = handlers.DefaultCheckpointHandlerRegistry()
        registry.add("state", ocp.args.PyTreeSave, _handler())
        registry.add("content", ocp.args.JsonSave, ocp.JsonCheckpointHandler())
        options = ocp.CheckpointManagerOptions(
            step_prefix="save",
            preservation_policy=self._preserved,
            cleanup_tmp_directories=True,  # of a save that was killed
            lightweight_initialize=True,  # reads nothing that may be damaged
            todelete_subdir=_REMOVED,
            # Were they made in the background, a failure would leave threads that wait for them.
            async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
        )
        self._manager = ocp.CheckpointManager(directory.absolute(), options=options, handler_registry=registry)

    def begin(
        self, number: int, content: dict[str, Any], arrays: dict[str, np.ndarray], best: int | None, damaged: set[int]
    ) -> None:
        """Begin to write a checkpoint, then to remove those that are not kept."""
        self._preserved.best, self._preserved.damaged = best, damaged
        parts = ocp.args.Composite(state=ocp.args.PyTreeSave(arrays), content=ocp.args.JsonSave(content))
        self._manager.save(number, args=parts, force=True)
        self._begun = True

    def wait(self) -> None:
        """Wait until it is written; raises what went wrong."""
        self._manager.wait_until_finished()
        if self._begun and jax.process_index() == 0:  # before that Orbax may still be cleaning up
            shutil.rmtree(self._manager.directory / _REMOVED, ignore_errors=True)

    def close(self) -> None:
        with self._open:
            self._manager.close()


class _Preserved:
    """Which checkpoints are not removed; a `PreservationPolicy`."""

    def __init__(self, last: int):
        self.last = last
        self.best: int | None = None
        self.damaged: set[int] = set()

    def should_preserve(self, checkpoints: Sequence[Any], *, context: PreservationContext) -> list[bool]:
        whole = [each.step for each in checkpoints if each.step not in self.damaged]
        return [each.step in {*whole[-self.last :], self.best, *self.damaged} for each in checkpoints]


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
    with _quiet(), closing(_handler()) as handler:
        return handler.restore(epath.Path(path.absolute()))
