"""A look at where the time of a few steps goes."""

from collections.abc import Generator, Iterator
from itertools import islice
from os import PathLike
from pathlib import Path
from tempfile import TemporaryFile
from typing import TypeVar

import jax

Reached = TypeVar("Reached")

_LAST = 20


def trace_steps(run: Iterator[Reached], directory: str | PathLike[str], *, steps: int) -> Generator[Reached]:
    """Hands on what a run yields, and takes a trace of its steps 10 to 20, or of the second half of a shorter run's.

    By then the step is compiled. What the caller does between the steps is in the trace too. XProf, TensorBoard's
    profiler and `jax.profiler.ProfileData` open the file, which ends in ``.xplane.pb``; Perfetto opens the one in
    ``.trace.json.gz``. The steps are called "train_step", and are numbered from 1 for the first that this run takes.

    Args:
        run: From `fit`.
        directory: Where the trace goes, in a folder of its own by the time of day; made if need be.
        steps: How many steps the run takes.

    Yields:
        What `run` does.

    Raises:
        OSError: the directory cannot be made, or nothing can be written to it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     list(trace_steps(iter("abcd"), directory, steps=4))
        ['a', 'b', 'c', 'd']
    """
    Path(directory).mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=directory):  # or that nothing can be written were said after the last step, by the profiler
        pass
    last = min(_LAST, steps)
    first = max(1, last // 2)
    yield from islice(run, first - 1)
    with jax.profiler.trace(directory):
        for number in range(first, last + 1):
            with jax.profiler.StepTraceAnnotation("train_step", step_num=number):
                reached = next(run)
            yield reached
    yield from run
