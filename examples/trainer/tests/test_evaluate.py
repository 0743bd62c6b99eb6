"""The command that evaluates the networks that the trainer has kept."""

import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
import optax
import pytest

from examples.trainer import data, evaluate, train, training
from examples.trainer.answers import print_confusion
from examples.trainer.tests.data_files import allocating_at_most
from examples.trainer.tests.npz_files import npz
from jaxbn import cnn

pytestmark = pytest.mark.usefixtures("quickly_compiled")


@pytest.fixture(autouse=True)
def as_a_user(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("COLUMNS", "80")
    with jax.enable_x64(False), jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def example() -> ModuleType:
    return evaluate


def network(seed: int) -> training.TrainState:
    """From some seeds, 2 and 11 among them, the first member is right more often than the vote."""
    keys = jax.random.split(jax.random.key(seed), 2)
    return training.create_train_state(keys, cnn.CNNConfig(3, 1, (4,)), optax.adam(1e-3))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set, and two checkpoints of an ensemble for it, the first of them the better one."""
    folder = tmp_path_factory.mktemp("kept")
    npz()(folder / "images.npz")
    fingerprint = data.fingerprint(data.load(folder / "images.npz"))
    settings = {"features": (4,), "ensemble": 2, "seed": 5, "classes": 3, "image_shape": (5, 4, 1), "data": fingerprint}
    with training.Checkpoints(folder / "run", settings) as checkpoints:
        checkpoints.save(network(11), [], accuracy=0.9)
        checkpoints.save(network(2), [], accuracy=0.1)
    with training.Checkpoints(folder / "other", {"features": 4}) as checkpoints:
        checkpoints.save(network(0), [])
    return folder


def answers_in(output: str) -> str:
    """What is said of accuracy and confusion."""
    (found,) = re.findall(
        r"^test accuracy.*\n(?:test accuracy.*\n)*confusion.*\n(?: +[\d. ]+\n)+", output, re.MULTILINE
    )
    return found


def test_it_says_of_a_run_what_the_run_has_said(
    example: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    npz()(tmp_path / "images.npz")
    common = ["--data", str(tmp_path / "images.npz")]
    quick = ["--epochs", "1", "--batch-size", "6", "--features", "4", "--output", str(tmp_path)]
    train.main([*common, *quick, "--checkpoint", str(tmp_path / "run")])
    said = capsys.readouterr().out
    example.main([*common, str(tmp_path / "run")])
    out = capsys.readouterr().out
    assert out.splitlines()[0] == f"{tmp_path}/run/save_0, after step 2; 6 test images"
    assert answers_in(out) == answers_in(said) == "".join(out.splitlines(keepends=True)[1:])


@pytest.mark.parametrize(("options", "save", "seed"), [([], 1, 2), (["--best"], 0, 11)])
def test_an_ensemble_is_evaluated_and_exported(
    example: ModuleType,
    kept: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    save: int,
    seed: int,
) -> None:
    file = tmp_path / "network"
    example.main([str(kept / "run"), "--data", str(kept / "images.npz"), "--export", str(file), *options])
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"{kept}/run/save_{save}, after step 0; 6 test images"
    assert said[-1] == f"exported: {file}"

    dataset = data.load(kept / "images.npz")
    images = dataset.x_test[:]
    logits = training.predict(network(seed), images)
    vote = np.asarray(training.vote(logits))
    for line, name, answers in zip(
        said[1:], ("seed 5", "seed 6", "their averaged vote"), (*logits, vote), strict=False
    ):
        assert line == f"test accuracy of {name}: {np.mean(answers.argmax(-1) == dataset.y_test):.2%}"
    counts = np.zeros((3, 3), int)
    np.add.at(counts, (dataset.y_test, vote.argmax(-1)), 1)
    shown = [[int(number.replace(".", "0")) for number in line.split()[1:]] for line in said[-4:-1]]
    np.testing.assert_array_equal(shown, counts)
    np.testing.assert_allclose(jax.export.deserialize(bytearray(file.read_bytes())).call(images), vote, rtol=1e-5)


def test_other_data_of_the_same_kind_are_remarked_upon(
    example: ModuleType, kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = data.load(kept / "images.npz")
    images, labels = dataset.x_test[:], dataset.y_test
    np.savez(tmp_path / "other.npz", x_train=images, y_train=labels, x_test=1 - images, y_test=labels)
    example.main([str(kept / "run"), "--data", str(tmp_path / "other.npz")])
    assert capsys.readouterr().out.splitlines()[1] == "the data are not those that it was trained with"


def larger(folder: Path) -> Path:
    images, labels = np.zeros((6, 5, 6)), np.arange(6) % 3
    np.savez(folder / "larger.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    return folder / "larger.npz"


def truncated(folder: Path, kept: Path) -> Path:
    copy = folder / "copy"
    shutil.copytree(kept / "run", copy)
    for save in copy.iterdir():
        (save / "content" / "metadata").write_text("{")
    return copy


@pytest.mark.parametrize("best", [(), ("--best",)])
def test_a_damaged_one_is_named(
    example: ModuleType, kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], best: tuple[str, ...]
) -> None:
    shutil.copytree(kept / "run", tmp_path / "copy")
    damaged = tmp_path / "copy" / "save_1"
    (damaged / "content" / "metadata").write_text("{")
    example.main([str(tmp_path / "copy"), *best, "--data", str(kept / "images.npz")])
    shown = capsys.readouterr()
    assert shown.err.startswith(f"evaluate: {damaged} is damaged (")
    assert shown.out.startswith(f"{tmp_path / 'copy' / 'save_0'}, after step")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            lambda folder, kept: [kept / "run"],
            "save_1: the network is for 3 classes in images of 5×4×1; the data have 10 classes in images of 8×8×1",
        ),
        (
            lambda folder, kept: [kept / "run", "--data", larger(folder)],
            "save_1: the network is for 3 classes in images of 5×4×1; the data have 3 classes in images of 5×6×1",
        ),
        (lambda folder, kept: [kept / "nowhere"], "nowhere: No such file or directory"),
        (lambda folder, kept: [folder], "no checkpoint is in it"),
        (lambda folder, kept: [kept / "images.npz"], "images.npz"),
        (lambda folder, kept: [kept / "other"], "save_0: not saved by the trainer: its settings have no 'classes'"),
        (lambda folder, kept: [truncated(folder, kept)], "is damaged"),
        (lambda folder, kept: [kept / "run", "--data", folder / "none.npz"], "none.npz': No such file or directory"),
        (
            lambda folder, kept: [kept / "run", "--data", kept / "images.npz", "--export", folder],
            "Is a directory",
        ),
    ],
)
def test_what_cannot_be_evaluated_ends_with_one_line_and_status_2(
    example: ModuleType,
    kept: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: Callable[[Path, Path], list[Any]],
    message: str,
) -> None:
    with pytest.raises(SystemExit) as left:
        example.main(list(map(str, arguments(tmp_path, kept))))
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("evaluate: ")
    assert message in line


def test_a_confusion_matrix_too_wide_for_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    labels = np.arange(60) % 20
    answers = np.where(labels == 7, 11, labels)
    answers[3] = 19
    print_confusion(labels, answers, 20)
    heading, *lines = capsys.readouterr().out.splitlines()
    assert "too wide for this terminal" in heading
    assert [line.strip() for line in lines] == [
        "3 times class 7 was taken for 11",
        "1 times class 3 was taken for 19",
    ]


def test_very_many_classes_take_no_matrix(capsys: pytest.CaptureFixture[str]) -> None:
    labels = np.arange(60)
    with allocating_at_most(1_000_000):
        print_confusion(labels, labels * 1_000, 60_000)
    assert capsys.readouterr().out.splitlines()[1] == "    1 times class 1 was taken for 1000"


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [(BrokenPipeError, 128 + signal.SIGPIPE, ""), (KeyboardInterrupt, 130, "evaluate: stopped by SIGINT\n")],
)
def test_it_is_left_with_no_more_than_a_line(
    example: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: type[BaseException],
    status: int,
    message: str,
) -> None:
    def stopped(options: object) -> None:
        raise error

    monkeypatch.setattr(example, "evaluate", stopped)
    monkeypatch.setattr(os, "dup2", lambda *files: None)
    with pytest.raises(SystemExit) as left:
        example.main(["anything"])
    assert (left.value.code, capsys.readouterr().err) == (status, message)
