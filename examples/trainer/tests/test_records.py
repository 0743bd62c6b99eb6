"""What is written down of a run: the lines of its steps, and TensorBoard's points."""

import functools
import importlib
import json
import re
import struct
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from examples.trainer import data, training
from examples.trainer.training import Metrics, Progress, loop, recorder
from jaxbn import cnn

pytestmark = pytest.mark.usefixtures("quickly_compiled")


def metrics(loss: Any, accuracy: Any) -> Metrics:
    return Metrics(jnp.asarray(loss, jnp.float32), jnp.asarray(accuracy, jnp.float32))


def reached(step: int) -> Progress:
    """Three steps an epoch; a loss with digits that only float32 has."""
    epoch, batch = divmod(step - 1, 3)
    test = metrics(step + 1e-3, 0.7) if batch == 2 else None
    return Progress(epoch + 1, batch + 1, 3, metrics(9, 9), test, 0, metrics(1 / step, 0.1 * step))


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line, parse_constant=pytest.fail) for line in path.read_text().splitlines()]


def test_a_line_a_step(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    with recorder(lines=path) as record:
        for step in range(1, 7):
            record(reached(step))
            assert len(path.read_bytes().splitlines()) == step  # nothing waits for more
    assert path.read_text().splitlines()[1:3] == [
        '{"step": 2, "epoch": 1, "skipped": 0, "loss": 0.5, "accuracy": 0.2}',
        '{"step": 3, "epoch": 1, "skipped": 0, "loss": 0.33333334, "accuracy": 0.3, '
        '"test_loss": 3.001, "test_accuracy": 0.7}',
    ]
    lines = lines_of(path)
    assert [(line["step"], line["epoch"]) for line in lines] == [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (6, 2)]
    assert [np.float32(line["loss"]) for line in lines] == [np.float32(1 / step) for step in range(1, 7)]


def test_an_ensembles_are_lists_and_what_is_not_finite_is_null(tmp_path: Path) -> None:
    with recorder(lines=tmp_path / "lines") as record:
        record(
            Progress(1, 1, 1, metrics([9, 9], [9, 9]), metrics([np.inf, 2], [0, 1]), 3, metrics([0.1, np.nan], [1, 0]))
        )
        record(Progress(2, 1, 1, metrics(9, 9), None, 4, metrics(-np.inf, 1e-7)))
    first, second = lines_of(tmp_path / "lines")
    assert first == {
        "step": 1,
        "epoch": 1,
        "skipped": 3,
        "loss": [0.1, None],
        "accuracy": [1.0, 0.0],
        "test_loss": [None, 2.0],
        "test_accuracy": [0.0, 1.0],
    }
    assert second == {"step": 2, "epoch": 2, "skipped": 4, "loss": None, "accuracy": 1e-7}


def test_the_lines_of_fit_are_its_batches_and_a_resumed_runs_are_those_of_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "make_train_step", functools.cache(training.make_train_step))
    rng = np.random.default_rng(0)
    images, labels = rng.normal(size=(20, 5, 4, 1)).astype(np.float32), rng.integers(0, 3, 20).astype(np.int32)
    dataset, optimizer = data.Dataset(images, labels, images[:6], labels[:6], classes=3), optax.sgd(0.1)

    def run(path: Path, start: training.TrainState | None = None, steps: int | None = None) -> training.TrainState:
        keys, config = jax.random.split(jax.random.key(0)), cnn.CNNConfig(classes=3, features=(4,))
        state = start or training.create_train_state(keys, config, optimizer)
        means.clear()
        with recorder(int(np.max(state.step)), lines=path) as record:
            for latest in islice(training.fit(state, dataset, optimizer, epochs=3, batch_size=6), steps):
                state, progress = latest
                record(progress)
                means.append(np.asarray(progress.train.loss))
        return state

    means: list[np.ndarray] = []
    whole = tmp_path / "whole"
    run(whole)
    losses = np.array([line["loss"] for line in lines_of(whole)]).reshape(3, 3, 2)  # of epochs, batches and members
    np.testing.assert_allclose(np.reshape(means, (3, 3, 2))[:, -1], losses.mean(1), rtol=1e-6)

    killed = tmp_path / "killed"
    run(killed, steps=7)  # seven lines, and the last checkpoint was after four
    with killed.open("ab") as file:
        file.write(b'{"step": 8, "epo')
    run(killed, run(tmp_path / "other", steps=4))
    assert killed.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("step", [0, 2, 3, 4])
def test_a_line_that_was_written_by_any_part_is_cut_off(tmp_path: Path, step: int) -> None:
    path = tmp_path / "lines"
    with recorder(lines=path) as record:
        for number in range(1, 5):
            record(reached(number))
    content = path.read_bytes()
    lines = content.splitlines(keepends=True)
    for part in range(len(lines[3])):
        path.write_bytes(content[: len(content) - part])
        with recorder(step, lines=path):
            pass
        assert path.read_bytes() == b"".join(lines[: min(step, 3 if part else 4)])


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"my only copy", 1),
        (b"my only copy\n", 1),
        (b'{"step": 1}\n\n{"step": 2}\n', 2),
        (b'{"step": 1}\n{"step": "2"}\n', 2),
        (b'{"step": 1}\n[2]\n', 2),
        (b'{"step": 1}\n{"epoch": 2}\n', 2),
        (b'{"step": 1}\n{"step": \n', 2),
        (b'{"step": 1}\n' + bytes(20), 2),
        (b'{"step": 1}\n\xff\xfe\n', 2),
    ],
)
def test_a_file_that_holds_something_else_is_left_alone(tmp_path: Path, content: bytes, line: int) -> None:
    path = tmp_path / "lines"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^recorder: '{re.escape(str(path))}', line {line}: no line of metrics: "):
        recorder(1, lines=path).__enter__()
    assert path.read_bytes() == content


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Is a directory"):
        recorder(lines=tmp_path).__enter__()


def points(directory: Path) -> dict[str, dict[int, float]]:
    """What TensorBoard shows: of each curve its values by their steps, those that were purged left out."""
    events: Any = importlib.import_module("tensorboardX.proto.event_pb2")
    shown: dict[str, dict[int, float]] = {}
    for path in sorted(directory.iterdir(), key=lambda path: int(path.suffix.removeprefix(".after-"))):
        content = path.read_bytes()
        while content:
            length = 12 + struct.unpack_from("<Q", content)[0]  # the length and its checksum, the event and its own
            event = events.Event.FromString(content[12:length])
            content = content[length + 4 :]
            if event.session_log.status == events.SessionLog.START:
                shown = {tag: {at: y for at, y in curve.items() if at < event.step} for tag, curve in shown.items()}
            for value in event.summary.value:
                shown.setdefault(value.tag, {})[event.step] = value.simple_value
    return shown


def test_tensorboard(tmp_path: Path) -> None:
    for step, last in ((0, 7), (3, 6)):  # killed after the seventh step, resumed after the third
        with recorder(step, tensorboard=tmp_path / "board", lines=tmp_path / "lines") as record:
            for number in range(step + 1, last + 1):
                progress = reached(number)
                assert progress.batch_metrics is not None
                record(progress._replace(batch_metrics=metrics(number + step, 0.5)))
    assert points(tmp_path / "board") == {
        "loss": dict(zip(range(1, 7), (1, 2, 3, 7, 8, 9), strict=True)),
        "accuracy": dict.fromkeys(range(1, 7), 0.5),
        "test_loss": {3: np.float32(3.001), 6: np.float32(6.001)},
        "test_accuracy": {3: np.float32(0.7), 6: np.float32(0.7)},
    }
    assert len((tmp_path / "lines").read_bytes().splitlines()) == 6


def test_tensorboard_has_a_curve_for_each_member(tmp_path: Path) -> None:
    with recorder(tensorboard=tmp_path) as record:
        record(Progress(1, 1, 9, metrics([9, 9], [9, 9]), None, 0, metrics([0.5, 0.25], [1, 0])))
    want = {"loss/0": {1: 0.5}, "loss/1": {1: 0.25}, "accuracy/0": {1: 1.0}, "accuracy/1": {1: 0.0}}
    assert points(tmp_path) == want


def test_tensorboard_is_an_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ImportError, match=r'recorder needs tensorboardX: python -m pip install "jaxbn\[tensorboard\]"'):
        recorder(tensorboard=tmp_path).__enter__()
    with recorder(lines=tmp_path / "lines") as record:
        record(reached(1))
