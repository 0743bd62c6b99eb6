"""Several processes that train one network together: how they meet, agree and part.

Each waits at every step for what the others have computed, so that none can go on once another is gone. JAX notices
that in one of two ways. If the other's machine still answers, as when only the process was killed, the next exchange
fails, and that is an exception. If process 0 is gone, which is JAX's coordinator, or if nothing has been heard of
another for `SILENCE` seconds, JAX ends the process with abort(), and Python has no say in it but by a handler in C.
"""

import ctypes
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

ARRIVAL = 60  # seconds that the processes have to find each other
SILENCE = 20  # seconds without a sign of life, after which a process counts as gone
LINGERING = 2  # seconds that process 0 gives the others to leave before it
EXCHANGE = re.compile("gloo|nccl|coordination", re.IGNORECASE)  # names what has failed between processes


@contextmanager
def join_processes(
    coordinator: str | None, process_id: int | None, process_count: int | None, *, tell: Callable[[str], object]
) -> Iterator[None]:
    """Inside of it this is one of several processes, each of which does the same, on its own share of the data.

    `jax.devices()` are then those of all processes. Only process 0 is heard on stdout. At its end each waits for the
    others. An exception, `SystemExit` among them, leaves at once and takes the others along: of what all decide alike,
    such as to stop early, go out by the end.

    Where another process is gone, this one says so and exits with status 1, within half a minute.

    Args:
        coordinator: ``HOST:PORT`` of process 0, where the others find it. It listens there.
        process_id: Of this process, from 0.
        process_count: How many there are. If it is None, and the others too, this is the only one and nothing happens.
        tell: Is called with a sentence without its full stop, in the place of an exception, before the process exits:
            another process is gone, or some have not come within a minute. It must not use JAX.

    Raises:
        ValueError: an argument is missing or out of range.
        ConnectionError: nobody has answered at `coordinator` for a minute, or its host is not known.

    Example:
        >>> with join_processes("localhost:3000", 0, 1, tell=print):
        ...     jax.process_count()
        1
    """
    if (coordinator, process_id, process_count) == (None, None, None):
        yield
        return
    if coordinator is None or process_id is None or process_count is None:
        raise ValueError(
            "join_processes: `coordinator`, `process_id` and `process_count` go together; one of them is None"
        )
    if not re.fullmatch(r".+:\d+", coordinator):
        raise ValueError(f"join_processes: `coordinator` is {coordinator!r}; it must be HOST:PORT")
    if not 0 <= process_id < process_count:
        raise ValueError(f"join_processes: `process_id` is {process_id}; it must be from 0 to {process_count - 1}")
    if process_count == 1:
        yield
        return
    with _stdout_of_python(heard=process_id == 0):
        late = f"not all of the {process_count} processes have come within {ARRIVAL} seconds"
        with _instead_of_abort(lambda: _leave(1, tell, late)):
            _join(coordinator, process_id, process_count)
        gone = f"another of the {process_count} processes is gone"
        with _instead_of_abort(lambda: _leave(1, tell, gone)):
            try:
                yield
            except BaseException as error:
                if isinstance(error, jax.errors.JaxRuntimeError) and EXCHANGE.search(str(error)):
                    _leave(1, tell, gone)
                status = _as_interpreter(error)
                if process_id == 0:  # the coordinator; where all have the same reason, each is to give it
                    time.sleep(LINGERING)
                _leave(status)
            jax.distributed.shutdown()


def agree(number: int) -> int:
    """The largest of all processes' numbers: what each must know before it does what the others might not.

    Args:
        number: Of this process, such as of the signal that it has been sent, or 0. All must ask at the same place.

    Returns:
        The same in all of them.

    Example:
        >>> agree(3)
        3
    """
    return number if jax.process_count() == 1 else int(multihost_utils.process_allgather(np.int32(number)).max())


def _join(coordinator: str, process_id: int, process_count: int) -> None:
    if process_id > 0:
        _await(coordinator)
    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM for itself
    jax.distributed.initialize(
        coordinator,
        process_count,
        process_id,
        cluster_detection_method="deactivate",
        initialization_timeout=ARRIVAL,
        heartbeat_timeout_seconds=SILENCE,
    )


def _await(coordinator: str) -> None:
    """Wait until somebody listens there: JAX, which waits by itself, ends with a page in C++ where nobody does."""
    host, _, port = coordinator.rpartition(":")
    until = time.monotonic() + ARRIVAL
    while True:
        try:
            return socket.create_connection((host.strip("[]"), port), timeout=ARRIVAL).close()
        except OSError as error:
            if isinstance(error, socket.gaierror) or time.monotonic() > until:
                problem = f"nobody answers there ({error.strerror or error})"
                raise ConnectionError(f"join_processes: `coordinator` is {coordinator!r}; {problem}") from error
        time.sleep(0.1)


@contextmanager
def _stdout_of_python(heard: bool) -> Iterator[None]:
    """What Python prints is heard or not; what libraries in C++ print is not. Gloo greets each connection there."""
    with open(os.devnull, "w") as nothing, open(os.dup(1), "w", buffering=1, encoding=sys.stdout.encoding) as own:
        os.dup2(nothing.fileno(), 1)
        try:
            with redirect_stdout(own if heard else nothing):
                yield
        finally:
            os.dup2(own.fileno(), 1)


@contextmanager
def _instead_of_abort(do: Callable[[], object]) -> Iterator[None]:
    """Calls `do` where C++ calls abort(), in the very thread: a handler of Python's own would wait for the main one."""
    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda _: do())
    ctypes.CDLL(None).signal(int(signal.SIGABRT), handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGABRT, signal.SIG_DFL)


def _as_interpreter(error: BaseException) -> int:
    """The status that Python would exit with, after it has printed what it would."""
    if not isinstance(error, SystemExit):
        sys.excepthook(type(error), error, error.__traceback__)
        return 1
    if isinstance(error.code, str):
        print(error.code, file=sys.stderr)
        return 1
    return error.code or 0


def _leave(status: int, tell: Callable[[str], object] | None = None, what: str = "") -> NoReturn:
    """Exit without JAX's waiting for the others, who may be waiting for this one."""
    try:
        if tell is not None:
            tell(what)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)
