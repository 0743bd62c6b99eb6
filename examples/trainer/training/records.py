"""What a run was like, step by step, as JSON lines and in TensorBoard."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .loop import Progress

Record = Callable[[Progress], None]

_BEGINNING = b'{"step":'  # of every line


@contextmanager
def recorder(
    step: int = 0, *, lines: str | PathLike[str] | None = None, tensorboard: str | PathLike[str] | None = None
) -> Iterator[Record]:
    """Writes down what `fit` reports, for as long as the context lasts.

    A line of the file is of one step, and the next line is the next step's::

        {"step": 88, "epoch": 2, "skipped": 0, "loss": 0.21, "accuracy": 0.94, "test_loss": 0.3, "test_accuracy": 0.9}

    Loss and accuracy are those of the step's batch; the test's are there after an epoch's last one. Of an ensemble
    they are lists, with an entry for each member. What is NaN or infinite is null, since JSON has no word for it.
    `skipped` is `Progress`'s. A line is with the operating system before `record` returns.

    What is there of later steps than `step` belongs to a run that was killed after its last checkpoint: lines are cut
    off, as is one that was only half written, and TensorBoard is told not to show it. So a killed run that is resumed
    leaves the file that it would have left had it never been killed. TensorBoard's points are written each second.

    Args:
        step: Steps that the run has behind it, those that it was resumed after; 0 begins anew.
        lines: The file of JSON lines, which is made if need be. None writes none.
        tensorboard: The directory for TensorBoard's files, made if need be. None writes none.

    Yields:
        ``record(progress)``, to be called after each step.

    Raises:
        ValueError: the file has a line that is none of this function's; nothing is changed then.
        OSError: file or directory cannot be written.
        ImportError: `tensorboard` is asked for and tensorboardX is not installed.

    Example:
        >>> import tempfile
        >>> from examples.trainer.training import Metrics
        >>> metrics = Metrics(np.float32(0.5), np.float32(0.875))
        >>> with tempfile.TemporaryDirectory() as directory, recorder(lines=f"{directory}/lines") as record:
        ...     record(Progress(1, 1, 44, metrics, None, batch_metrics=metrics))
        ...     print(Path(directory, "lines").read_text().strip())
        {"step": 1, "epoch": 1, "skipped": 0, "loss": 0.5, "accuracy": 0.875}
    """
    with ExitStack() as opened:
        records: list[Record] = []
        if lines is not None:
            records.append(opened.enter_context(_json_lines(lines, step)))
        if tensorboard is not None:
            records.append(opened.enter_context(_tensorboard(tensorboard, step)))

        def record(progress: Progress) -> None:
            for each in records:
                each(progress)

        yield record


@contextmanager
def _json_lines(path: str | PathLike[str], step: int) -> Iterator[Record]:
    with Path(path).open("a+b") as file:
        file.truncate(_end_of(file, step))

        def record(progress: Progress) -> None:
            fields = {"step": progress.step, "epoch": progress.epoch, "skipped": progress.skipped}
            fields |= {name: _json(value) for name, value in _measured(progress).items()}
            file.write(json.dumps(fields, allow_nan=False).encode() + b"\n")
            file.flush()

        yield record


def _end_of(file: BinaryIO, step: int) -> int:
    """Where the lines up to `step` end."""
    end = 0
    file.seek(0)
    for number, line in enumerate(file, 1):
        if not line.endswith(b"\n") and _BEGINNING.startswith(line[: len(_BEGINNING)]):
            break  # its process was killed while it wrote
        try:
            later = json.loads(line)["step"] > step
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"recorder: {file.name!r}, line {number}: no line of metrics: {line[:40]!r}") from None
        if later:
            break
        end += len(line)
    return end


@contextmanager
def _tensorboard(directory: str | PathLike[str], step: int) -> Iterator[Record]:
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise ImportError('recorder needs tensorboardX: python -m pip install "jaxbn[tensorboard]"') from error

    # The name of its file is a time in whole seconds: of two runs in one second each needs a name of its own.
    with SummaryWriter(str(directory), purge_step=step + 1, flush_secs=1, filename_suffix=f".after-{step}") as writer:

        def record(progress: Progress) -> None:
            for name, value in _measured(progress).items():
                for member, number in enumerate(np.atleast_1d(value)):
                    writer.add_scalar(f"{name}/{member}" if value.ndim else name, number, progress.step)

        yield record


def _measured(progress: Progress) -> dict[str, np.ndarray]:
    """What is written of a step, by its name: an array of shape () or (members,)."""
    both = (("", progress.batch_metrics), ("test_", progress.test))
    return {
        prefix + name: np.asarray(value)
        for prefix, metrics in both
        if metrics is not None
        for name, value in metrics._asdict().items()
    }


def _json(value: np.ndarray) -> Any:
    """Numbers in as few digits as tell them from the others of their dtype."""
    if value.ndim:
        return [_json(each) for each in value]
    return float(str(value)) if np.isfinite(value) else None
