"""How a run is going: a bar where somebody watches, a line an epoch where not; of `train_cnn.py`."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from tqdm import tqdm

from jaxbn import training


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
