"""How the commands leave when nobody reads their output any more."""

import os
import signal
import sys


def leave_unheard() -> None:
    """To be called after a `BrokenPipeError`: who read the output has gone, as `head` does, and nothing more is said.

    Raises:
        SystemExit: with the status of a program that the system has ended for it.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python would try once more at the exit, and complain
    sys.exit(128 + signal.SIGPIPE)
