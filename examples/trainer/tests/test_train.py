"""The trainer's command: in a process of its own, as a user runs it, and in this one."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure

from examples.trainer import train
from examples.trainer.tests.npz_files import WRONG_FILES, npz

ROOT = Path(__file__).parents[3]
QUICK = ("--epochs", "2", "--batch-size", "6", "--features", "4")


def run(folder: Path, *options: object) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, "-m", "examples.trainer", *map(str, options)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path, "PYTHONIOENCODING": "utf-8", "COLUMNS": "80"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


def picture_named_by(output: str) -> Path:
    """The picture's path, from the last line."""
    return Path(output.splitlines()[-1].removeprefix("learning curves: "))


def confusion_in(output: str) -> np.ndarray:
    """The matrix, from the lines behind its heading and its row of classes."""
    lines = output[output.index("confusion matrix") :].splitlines()[2:-1]
    return np.array([[int(number.replace(".", "0")) for number in line.split()[1:]] for line in lines])


def test_the_digits_are_learnt(tmp_path: Path) -> None:
    done = run(tmp_path, "--epochs", 6)
    assert done.returncode == 0, done.stderr
    assert "1437 training and 360 test images of 8×8×1, 10 classes" in done.stdout
    for epoch in range(1, 7):
        assert re.search(rf"^epoch {epoch}/6: loss \d\.\d+, accuracy \d+\.\d%, test \d+\.\d%$", done.stderr, re.M)
    (percent,) = re.findall(r"^test accuracy: (\d+\.\d\d)%$", done.stdout, re.MULTILINE)
    assert float(percent) >= 97
    matrix = confusion_in(done.stdout)
    assert matrix.shape == (10, 10)
    np.testing.assert_array_equal(matrix.sum(1), [36, 36, 35, 37, 36, 37, 36, 36, 35, 36])
    assert f"{np.trace(matrix) / 3.60:.2f}" == percent
    picture = tmp_path / picture_named_by(done.stdout)
    assert picture == tmp_path / "runs" / "trainer" / "learning_curves.png"
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_an_ensemble_on_images_of_ones_own(tmp_path: Path) -> None:
    npz()(tmp_path / "images.npz")
    done = run(tmp_path, "--data", "images.npz", "--ensemble", 2, "--seed", 7, "--output", "here/there", *QUICK)
    assert done.returncode == 0, done.stderr
    assert "12 training and 6 test images of 5×4×1, 3 classes" in done.stdout
    assert re.findall(r"^test accuracy of (.*): \d+\.\d\d%$", done.stdout, re.MULTILINE) == [
        "seed 7",
        "seed 8",
        "their averaged vote",
    ]
    np.testing.assert_array_equal(confusion_in(done.stdout).sum(1), [2, 2, 2])
    assert picture_named_by(done.stdout) == Path("here/there/learning_curves.png")
    assert (tmp_path / "here/there/learning_curves.png").exists()


@pytest.fixture
def example() -> ModuleType:
    return train


def left_by(example: ModuleType, *arguments: object) -> str | int | None:
    """The status that the program, called in this process, leaves with."""
    with pytest.raises(SystemExit) as left:
        example.main([str(argument) for argument in arguments])
    return left.value.code


# The kinds that the user is likeliest to meet; the tests of each format have the message of every kind.
@pytest.mark.parametrize(
    "kind",
    [
        "missing",
        "random bytes",
        "cut short",
        "a plain .npy",
        "wrong keys",
        "pickled images",
        "labels out of range",
        "NaN images",
        "no training images",
        "images of two sizes",
    ],
)
def test_a_wrong_file_ends_with_one_line_and_status_2(
    example: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path, kind: str
) -> None:
    write, message = WRONG_FILES[kind]
    file = tmp_path / "images.npz"
    write(file)
    assert left_by(example, "--data", file, "--output", tmp_path / "runs") == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    assert line.startswith(f"trainer: '{file}': ")
    assert message in line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--data", "."), "no data set that is known; looked for"),
        (("--output", "taken"), "trainer: 'taken': File exists"),
        (("--output", "full"), "trainer: 'full/metrics.jsonl': Is a directory"),
        (("--checkpoint", "taken"), "trainer: taken: File exists"),
        (("--checkpoint", "other"), "trainer: other is no directory of checkpoints: a.txt is in it, and no save_0"),
        (("--batch-size", 1438), "argument --batch-size: 1438 is more than the 1437 training images"),
        (("--epochs", 10**24), f"argument --epochs: {10**24} are {44 * 10**24} steps; at most 2147483647 are counted"),
        (("--batch-size", 33, "--devices", 2), "argument --batch-size: 33 is no multiple of the 2 devices"),
        (("--devices", 9), "data_mesh: `devices` is 9; it must be from 1 to 8"),
        (("--shift", 8), "argument --shift: 8 is not below the images' sides, 8 and 8"),
        (("--local-batch-norm",), "argument --local-batch-norm: it is of several devices; --devices says how many"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    example: ModuleType,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[object, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").touch()
    (tmp_path / "full" / "metrics.jsonl").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.txt").touch()
    assert left_by(example, *options) == (1 if "--checkpoint" in options else 2)
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def broken(*arguments: object) -> None:
    raise BrokenPipeError


def test_the_picture_is_there_when_the_reader_of_the_answers_leaves(
    example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(example, "print_answers", broken)
    monkeypatch.setattr(example.training, "predict", lambda *arguments: np.zeros((6, 3)))
    row = {"epoch": 1, "train_loss": 2.0, "train_accuracy": 0.1, "test_loss": 3.0, "test_accuracy": 0.2}
    dataset = SimpleNamespace(x_test=None, y_test=None, classes=3)
    with pytest.raises(BrokenPipeError):
        example.report(None, [row], dataset, SimpleNamespace(output=tmp_path, ensemble=1, seed=0))
    assert (tmp_path / "learning_curves.png").exists()


def test_without_a_reader_it_leaves_without_a_word(
    example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(example, "train", broken)
    monkeypatch.setattr(os, "dup2", lambda *files: None)
    assert left_by(example, "--output", tmp_path) == 128 + signal.SIGPIPE
    assert capsys.readouterr().err == ""


def test_leaving_is_quiet_with_something_left_to_write() -> None:
    program = """
from examples.trainer.leaving import leave_unheard
try:
    print("a", flush=True)
except BrokenPipeError:
    leave_unheard()
"""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=os.environ | {"PYTHONUNBUFFERED": ""},
        stdout=write,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


@pytest.mark.parametrize("members", [(), (3,)])
def test_the_picture_shows_training_and_test(
    example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, members: tuple[int, ...]
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **options: drawn.append(figure))
    values = {
        "train_loss": [2.0, 1.0, 2 / 3, 0.5],
        "train_accuracy": [0.1, 0.2, 0.3, 0.4],
        "test_loss": [3.0, 1.5, 1.0, 0.75],
        "test_accuracy": [0.05, 0.1, 0.15, 0.2],
    }
    history = [
        {"epoch": epoch + 1} | {name: np.full(members, each[epoch]).tolist() for name, each in values.items()}
        for epoch in range(4)
    ]
    example.draw_learning_curves(history, tmp_path / "picture.png")
    loss, accuracy = drawn[0].axes
    for axes, scale, train_last, test_last in ((loss, 1, 0.5, 0.75), (accuracy, 100, 0.4, 0.2)):
        means = {line.get_label(): line.get_ydata() for line in axes.lines if not line.get_label().startswith("_")}
        assert [label.split(",")[0] for label in means] == ["training", "test"]
        np.testing.assert_allclose(
            [curve[-1] for curve in means.values()], [train_last * scale, test_last * scale], rtol=1e-6
        )
        assert len(axes.lines) == 2 + 2 * sum(members)
        assert axes.get_xlabel() == "epoch"
        assert axes.get_ylabel()
        assert len(axes.get_legend().get_texts()) == 2


@pytest.mark.usefixtures("quickly_compiled")
def test_a_run_goes_on_in_its_own_output_alone(
    example: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    npz()(tmp_path / "images.npz")
    first = ["--data", "images.npz", "--features", "4", "--epochs", "1", "--batch-size", "6", "--checkpoint", "kept"]
    with jax.numpy_dtype_promotion("standard"):  # Optax's Adam is not written for the strict one
        example.main(first)
        metrics = Path("runs/trainer/metrics.jsonl").read_bytes()
        capsys.readouterr()
        example.main(first)
        assert capsys.readouterr().out.splitlines()[1] == "going on from kept/save_0, after step 2"
        assert Path("runs/trainer/metrics.jsonl").read_bytes() == metrics
        example.main([*first[:-2], "--seed", "1"])
        assert left_by(example, *first) == 2
        assert "--output 'runs/trainer' is of a run with other settings by now" in capsys.readouterr().err
        example.main([*first, "--output", "elsewhere"])
        assert left_by(example, *first, "--seed", 1) == 1
    assert capsys.readouterr().err.endswith("save_0 is of a run with other settings: seed is 0 there and 1 here\n")
