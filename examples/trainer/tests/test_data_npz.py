"""What `load_npz` makes of good files, and what it says of wrong ones."""

import os
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from examples.trainer import data
from examples.trainer.data import files
from examples.trainer.tests.data_files import allocating_at_most
from examples.trainer.tests.npz_files import GOOD, WRONG_FILES, arrays, npz


@pytest.mark.parametrize("kind", WRONG_FILES)
def test_a_wrong_file_gets_one_line_and_little_memory(tmp_path: Path, kind: str) -> None:
    write, message = WRONG_FILES[kind]
    path = tmp_path / "images.npz"
    write(path)
    with allocating_at_most(2_000_000), pytest.raises(data.DataError) as caught:
        data.load_npz(path)
    text = str(caught.value)
    assert text.startswith(f"{str(path)!r}: ")
    assert message in text
    assert len(text.splitlines()) == 1


def test_more_than_this_machine_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The four arrays together are of 378 bytes."""
    npz()(tmp_path / "images.npz")
    monkeypatch.setattr(files, "_memory", lambda: 378)
    assert data.load_npz(tmp_path / "images.npz").classes == 3
    monkeypatch.setattr(files, "_memory", lambda: 377)
    with pytest.raises(data.DataError, match=r"images.npz' is larger than this machine's memory \(378 bytes\); plain"):
        data.load_npz(tmp_path / "images.npz")


def test_a_name_of_two_lines_is_shown_in_one(tmp_path: Path) -> None:
    with pytest.raises(data.DataError) as caught:
        data.load_npz(tmp_path / "first\nsecond.npz")
    assert "first\\nsecond.npz" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    npz(x_train=np.array([Trap()]))(tmp_path / "trap.npz")
    with pytest.raises(data.DataError, match="pickled"):
        data.load_npz(tmp_path / "trap.npz")
    assert not (tmp_path / "sprung").exists()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, len(GOOD) - 1), st.integers(0, 7), st.integers(0, len(GOOD)))
def test_a_damaged_file_is_read_right_or_refused(tmp_path: Path, at: int, bit: int, end: int) -> None:
    """Whatever bit is flipped and wherever the file ends: the documented error, or the same data set."""
    changed = bytearray(GOOD)
    changed[at] ^= 1 << bit
    for text in (bytes(changed), GOOD[:end]):
        (tmp_path / "images.npz").write_bytes(text)
        try:
            dataset = data.load_npz(tmp_path / "images.npz")
        except data.DataError:
            continue
        assert dataset.x_train.shape == (12, 5, 4, 1)
        np.testing.assert_array_equal(dataset.y_test, arrays()["y_test"])


def test_keras_greyscale(tmp_path: Path) -> None:
    npz()(tmp_path / "grey.npz")
    dataset = data.load_npz(str(tmp_path / "grey.npz"))
    for x, y, part in ((dataset.x_train, dataset.y_train, "train"), (dataset.x_test, dataset.y_test, "test")):
        assert x[:].dtype == np.float32
        np.testing.assert_allclose(x[:][..., 0], arrays()[f"x_{part}"] / 255.0, rtol=1e-7)
        assert x.shape == (*arrays()[f"x_{part}"].shape, 1)
        assert y.dtype == np.int32
        np.testing.assert_array_equal(y, arrays()[f"y_{part}"])
    assert dataset.classes == 3


def test_colour_with_a_column_of_labels(tmp_path: Path) -> None:
    """As Keras ships CIFAR-10: colour, labels (n, 1); the test set may lack a class."""
    x = np.arange(12 * 5 * 4 * 3, dtype=np.uint8).reshape(12, 5, 4, 3)
    y = np.array([[0], [7]] * 6)
    npz(x_train=x, y_train=y, x_test=x[:4], y_test=np.zeros((4, 1), np.int64))(tmp_path / "colour.npz")
    dataset = data.load_npz(tmp_path / "colour.npz")
    np.testing.assert_allclose(dataset.x_train[:], x / 255.0, rtol=1e-7)
    np.testing.assert_array_equal(dataset.y_train, [0, 7] * 6)
    np.testing.assert_array_equal(dataset.y_test, [0] * 4)
    assert dataset.classes == 8


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("order", ["C", "F"])
def test_floating_images_are_taken_as_they_are(tmp_path: Path, dtype: type, order: Literal["C", "F"]) -> None:
    x = np.random.default_rng(1).normal(0, 300, (12, 5, 4)).astype(dtype, order=order)
    npz(x_train=x)(tmp_path / "floating.npz")
    dataset = data.load_npz(tmp_path / "floating.npz")
    np.testing.assert_array_equal(dataset.x_train[:][..., 0], x.astype(np.float32))
    assert dataset.x_train[:].dtype == np.float32
