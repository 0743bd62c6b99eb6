"""How a run is going: a bar where somebody watches, a line an epoch where not, and files; of `train.py`."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from . import training


@contextmanager
def watched(
    options: argparse.Namespace, settings: dict[str, Any], step: int
) -> Iterator[Callable[[training.Progress], None]]:
    """Gives ``watch(progress)``, which shows and writes down each step."""
    if jax.process_index() > 0:
        yield lambda progress: None
        return
    own_output(options.output, settings, step)
    files = {"lines": options.output / "metrics.jsonl", "tensorboard": options.tensorboard}
    with training.recorder(step, **files) as record, shown_progress(options.epochs) as show:

        def watch(progress: training.Progress) -> None:
            record(progress)
            show(progress)

        yield watch


def own_output(output: Path, settings: dict[str, Any], step: int) -> None:
    """Says in the output's folder whose it is: a run that goes on must not add to the metrics of another."""
    file, text = output / "settings.json", json.dumps(settings, indent=1)
    if step and file.exists() and file.read_text(encoding="utf-8") != text:
        raise ValueError(f"--output {str(output)!r} is of a run with other settings by now; name another folder")
    file.write_text(text, encoding="utf-8")


@contextmanager
def shown_progress(epochs: int) -> Iterator[Callable[[training.Progress], None]]:
    """Gives ``show(progress)``, to be called after each step, and leaves whole lines behind, whatever happens.

    On a terminal there is a bar for each epoch. Elsewhere, as in a log, there is a line at the end of each. Both are on
    standard error, as what is found out at the end is on standard output.
    """
    bars: list[tqdm] = []  # the one of the epoch that is going on, if there is one
    width = len(str(epochs))

    def show_line(progress: training.Progress) -> None:
        if progress.batch == progress.batches:
            print(f"epoch {progress.epoch:{width}}/{epochs}: {_numbers(progress)}", file=sys.stderr, flush=True)

    def show_bar(progress: training.Progress) -> None:
        if not bars:
            bars.append(
                tqdm(
                    total=progress.batches,
                    initial=progress.batch - 1,  # where a resumed run begins
                    desc=f"epoch {progress.epoch:{width}}/{epochs}",
                    bar_format="{desc} |{bar:20}| {n_fmt}/{total_fmt} {elapsed}{postfix}",
                )
            )
        bars[0].set_postfix_str(_numbers(progress), refresh=False)
        bars[0].update()
        if progress.batch == progress.batches:
            bars.pop().close()

    try:
        yield show_bar if sys.stderr and sys.stderr.isatty() else show_line  # a process may have none
    finally:
        for bar in bars:
            bar.close()


def _numbers(progress: training.Progress) -> str:
    text = f"loss {np.mean(progress.train.loss):.4f}, accuracy {np.mean(progress.train.accuracy):.1%}"
    return text if progress.test is None else f"{text}, test {np.mean(progress.test.accuracy):.1%}"
