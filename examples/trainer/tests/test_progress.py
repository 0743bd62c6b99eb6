"""What a run shows of itself, on a terminal and elsewhere."""

import io
import sys
from contextlib import ExitStack
from types import ModuleType
from typing import Any

import jax.numpy as jnp
import pytest

from examples.trainer import progress as trainer_progress
from examples.trainer.training import Metrics, Progress


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True

    def lines(self) -> list[str]:
        """What is left of each line when the next one has begun."""
        assert self.getvalue().endswith("\n")
        return [line.split("\r")[-1] for line in self.getvalue().split("\n")[:-1]]


@pytest.fixture
def progress(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setenv("COLUMNS", "100")
    return trainer_progress


def reached(epoch: int, batch: int) -> Progress:
    def metrics(loss: Any, accuracy: Any) -> Metrics:
        return Metrics(jnp.asarray(loss, jnp.float32), jnp.asarray(accuracy, jnp.float32))

    return Progress(epoch, batch, 3, metrics([0.5, 1.5], [0.25, 0.75]), metrics(1, 0.625) if batch == 3 else None)


def test_a_line_an_epoch_where_there_is_no_terminal(progress: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with progress.shown_progress(10) as show:
        for epoch, batch in ((1, 3), (2, 1), (2, 2), (2, 3), (3, 1)):
            show(reached(epoch, batch))
    out, lines = capsys.readouterr()
    assert out == ""
    assert lines == "".join(f"epoch {epoch}/10: loss 1.0000, accuracy 50.0%, test 62.5%\n" for epoch in (" 1", " 2"))


def test_a_bar_an_epoch_on_a_terminal(progress: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with progress.shown_progress(10) as show:
        for batch in (2, 3):  # resumed after the first
            show(reached(9, batch))
        assert len(terminal.lines()) == 1  # the next epoch's begins with its first step
        for batch in (1, 2, 3):
            show(reached(10, batch))
    first, second = terminal.lines()
    for line, epoch in ((first, " 9/10"), (second, "10/10")):
        assert line.startswith(f"epoch {epoch} |{20 * '█'}| 3/3 00:")
        assert line.endswith(", loss 1.0000, accuracy 50.0%, test 62.5%")


def test_a_run_that_stops_leaves_its_bar_and_a_new_line(progress: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    stack = ExitStack()
    show = stack.enter_context(progress.shown_progress(1))  # kept, and its bar with it: who forgets a bar closes it
    show(reached(1, 1))
    with pytest.raises(KeyboardInterrupt), stack:
        raise KeyboardInterrupt
    (line,) = terminal.lines()
    assert "| 1/3 00:" in line
    assert "loss 1.0000" in line


def test_a_process_without_standard_error(
    progress: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    with progress.shown_progress(10) as show:
        show(reached(1, 3))
    assert capsys.readouterr().out.startswith("epoch  1/10: loss")  # as print does it
