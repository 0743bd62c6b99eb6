"""Being asked to stop: Ctrl-C, and SIGTERM, which schedulers send before they kill."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """A context in which the first Ctrl-C or SIGTERM is only remembered, so that a run can save and leave by itself.

    The second one ends the process at once. The handlers that were there before return when the context is left.

    Attributes:
        signal: The one that came; None as long as there was none.

    Raises:
        RuntimeError: entered in a thread that is not the main one, where Python handles no signals.

    Example:
        >>> import os, signal
        >>> with Interruption() as interruption:
        ...     os.kill(os.getpid(), signal.SIGTERM)
        ...     print(interruption.signal.name)
        SIGTERM
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("Interruption: signals come to the main thread alone; enter it there")
        self._before = {each: signal.signal(each, self._remember) for each in _SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)
