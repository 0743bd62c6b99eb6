"""Ctrl-C and SIGTERM: the first is remembered, so that a run can stop where it likes; the second kills."""

import os
import signal
import threading
from types import TracebackType
from typing import Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Inside of it the first SIGINT or SIGTERM changes nothing but `signal`, and the second ends the process.

    Python runs a signal's handler in the main thread, when that is next in Python, which may be long after: when a
    program is compiled, or another process has answered. But what a signal is called is written to a file at once, and
    a thread of its own reads it there.

    Attributes:
        signal: The first one; None before it.

    Raises:
        RuntimeError: it is entered in another thread than the main one, which alone may say what signals do.

    Example:
        >>> with Interruption() as interruption:
        ...     for step in range(3):
        ...         if interruption.signal:
        ...             break
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            name = threading.current_thread().name
            raise RuntimeError(f"Interruption: it is entered in thread {name!r}; it must be entered in the main thread")
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._file_before = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._listen, name="Interruption", daemon=True)
        self._thread.start()
        self._handlers_before = [signal.signal(each, lambda number, frame: None) for each in _SIGNALS]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        for each, handler in zip(_SIGNALS, self._handlers_before, strict=True):
            signal.signal(each, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(self._file_before)
        os.close(self._write)
        self._thread.join()
        os.close(self._read)

    def _listen(self) -> None:
        while number := os.read(self._read, 1):
            if number[0] in _SIGNALS:
                if self.signal is not None:
                    os._exit(128 + number[0])
                self.signal = signal.Signals(number[0])
