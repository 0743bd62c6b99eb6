"""The main job: as its user runs it, and its parts in this process."""

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure

from examples.digits import load_digits

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "examples" / "train_cnn.py"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(PROGRAM.parent)
    with jax.enable_x64(False), jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield importlib.import_module(PROGRAM.stem)


def test_the_digits_are_learnt(tmp_path: Path) -> None:
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, PROGRAM, "--epochs", "5"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    last = done.stderr.splitlines()[-1]
    assert re.search(r"epoch 5/5 .* 220/220 .*, loss \d\.\d{4}, accuracy \d+\.\d%, test \d+\.\d%", last)
    accuracy, heading, *matrix, picture = done.stdout.splitlines()
    assert float(accuracy.removeprefix("test accuracy: ").removesuffix("%")) >= 97
    assert heading.startswith("confusion matrix")
    counts = np.array([re.findall(r"\d+", row) for row in matrix], int)
    np.testing.assert_array_equal(counts.sum(1), [36, 36, 35, 37, 36, 37, 36, 36, 35, 36])
    assert accuracy == f"test accuracy: {np.trace(counts) / 360:.2%}"
    assert picture == "learning curves: runs/train_cnn/learning_curves.png"
    assert (tmp_path / "runs/train_cnn/learning_curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_person_can_read_it_in_five_minutes() -> None:
    assert len(PROGRAM.read_text(encoding="utf-8").splitlines()) <= 150


def test_a_network_of_an_ensemble_is_the_one_that_its_seed_trains_alone(
    example: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(example, "FEATURES", (3, 4))
    rng = np.random.default_rng(0)
    x_train, x_test = (rng.normal(size=(count, 8, 8, 1)).astype(np.float32) for count in (70, 9))
    data = x_train, x_test, np.arange(70, dtype=np.int32) % 10, np.arange(9, dtype=np.int32)
    logits, history = example.train(data, 2, range(5, 8))
    assert logits.shape == (3, 9, 10)
    assert history.shape == (2, 2, 3, 2)
    np.testing.assert_array_equal(history[-1, 1, :, 1], np.mean(logits.argmax(-1) == data[3], axis=1, dtype=np.float32))
    alone, history_alone = example.train(data, 2, [6])
    np.testing.assert_allclose(logits[1:2], alone, rtol=0, atol=1e-4)
    np.testing.assert_allclose(history[:, 0, 1:2], history_alone[:, 0], rtol=1e-4)


def test_the_answers_are_those_of_the_averaged_vote(
    example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The digits have the split of the other examples; the first network is right, the second slightly wrong."""
    digits = load_digits()
    right, wrong = 8 * np.eye(10)[digits.y_test], 0.1 * np.eye(10)[(digits.y_test + 1) % 10]

    def train(data: Any, epochs: int, seeds: range) -> tuple[np.ndarray, np.ndarray]:
        wanted = digits.x_train, digits.x_test, digits.y_train, digits.y_test
        for got, want in zip(data, wanted, strict=True):
            np.testing.assert_array_equal(got, want)
            assert got.dtype == want.dtype
        assert (epochs, seeds) == (3, range(7, 9))
        return np.stack([right, wrong]).astype(np.float32), np.ones((3, 2, 2, 2))

    monkeypatch.setattr(example, "train", train)
    example.main(["--epochs", "3", "--seed", "7", "--ensemble", "2", "--output", str(tmp_path / "new" / "folder")])
    said = capsys.readouterr().out.splitlines()
    assert said[:3] == ["test accuracy of seed 7: 100.00%", "test accuracy of seed 8: 0.00%", "test accuracy: 100.00%"]
    assert (tmp_path / "new" / "folder" / "learning_curves.png").exists()


def test_the_picture_shows_training_and_test(
    example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **options: drawn.append(figure))
    history = np.random.default_rng(0).uniform(0.1, 1, (4, 2, 3, 2))
    example.draw_learning_curves(history, tmp_path / "picture.png")
    for metric, axes in enumerate(drawn[0].axes):
        means = [line for line in axes.lines if not line.get_label().startswith("_")]
        assert [line.get_label().split(",")[0] for line in means] == ["training", "test"]
        for part, line in enumerate(means):
            np.testing.assert_allclose(line.get_ydata(), history[:, part, :, metric].mean(1))
        assert len(axes.lines) == 2 * (1 + 3)
        assert axes.get_xlabel() == "epoch"
    assert [axes.get_ylabel() for axes in drawn[0].axes] == ["cross-entropy", "accuracy"]


@pytest.mark.parametrize("option", ["--epochs", "--ensemble", "--seed"])
def test_a_number_that_makes_no_sense_is_refused(
    example: ModuleType, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        example.main([option, "-1"])
    assert "--epochs and --ensemble must be at least 1, --seed at least 0" in capsys.readouterr().err
