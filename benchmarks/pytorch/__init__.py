"""PyTorch in a process of its own, which computes while this one waits.

So its threads do not disturb JAX's, and its version of Python may be another. The environment variable `TORCH_PYTHON`
names the interpreter; it needs PyTorch and NumPy. Without the variable it is the interpreter that runs, if PyTorch is
installed there. The process reads a request from each line and answers with a line, both in JSON.
"""

import importlib.util
import json
import os
import subprocess
import sys
from functools import cache
from typing import Any

from benchmarks.timing import Effort, Timer


class Process:
    """The running process. It holds one program at a time."""

    def __init__(self, python: str) -> None:
        command = [python, "-m", "benchmarks.pytorch"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def call(self, function: str, *arguments: Any) -> Any:
        """Calls a function of `benchmarks.pytorch.programs`. A program that it makes is kept in the process."""
        return self._ask({"call": function, "arguments": arguments})

    def timer(self, function: str, *arguments: Any) -> Timer:
        """Makes a program and returns its timer, which is valid until the next program is made."""
        self.call(function, *arguments)
        return self._time

    def _time(self, effort: Effort) -> float:
        return self._ask({"time": effort})

    def _ask(self, request: dict[str, Any]) -> Any:
        writer, reader = self._process.stdin, self._process.stdout
        assert writer is not None
        assert reader is not None
        writer.write(json.dumps(request) + "\n")
        writer.flush()
        line = reader.readline()
        if not line:
            raise RuntimeError("PyTorch's process has ended; its error is above")
        return json.loads(line)


@cache
def process() -> Process | None:
    """PyTorch's process, or None if there is no PyTorch or JAX does not compute on the CPU."""
    import jax

    python = os.environ.get("TORCH_PYTHON") or (sys.executable if importlib.util.find_spec("torch") else None)
    return Process(python) if python and jax.default_backend() == "cpu" else None


def versions() -> dict[str, str]:
    """The versions of PyTorch and of its Python, for the record of a measurement."""
    torch = process()
    return torch.call("versions") if torch else {}
