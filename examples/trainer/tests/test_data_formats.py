"""What is the same for every file format: the right arrays, read when asked for, found by `load`."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from examples.trainer import data
from examples.trainer.tests.data_files import FORMATS, GREY, idx_files, put


@pytest.fixture(params=FORMATS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def want(kind: str) -> tuple[np.ndarray, ...]:
    """The arrays as they must come back; a folder goes by class."""
    x_train, y_train, x_test, y_test = FORMATS[kind].arrays
    if kind == "folder":
        train, test = (np.argsort(labels, kind="stable") for labels in (y_train, y_test))
        x_train, y_train, x_test, y_test = x_train[train], y_train[train], x_test[test], y_test[test]
    x_train, x_test = (x.reshape(*x.shape[:3], -1) / 255.0 for x in (x_train, x_test))
    return x_train, y_train, x_test, y_test


def test_the_arrays_come_back(tmp_path: Path, kind: str) -> None:
    dataset = FORMATS[kind].load(FORMATS[kind].write(tmp_path))
    x_train, y_train, x_test, y_test = want(kind)
    for images, x in ((dataset.x_train, x_train), (dataset.x_test, x_test)):
        assert images.shape == x.shape
        assert len(images) == len(x)
        assert images[:].dtype == np.float32
        np.testing.assert_allclose(images[:], x, rtol=1e-7)
    for labels, y in ((dataset.y_train, y_train), (dataset.y_test, y_test)):
        assert labels.dtype == np.int32
        np.testing.assert_array_equal(labels, y)
    assert dataset.classes == (10 if kind == "CIFAR-10" else 3)


def test_any_rows_come_as_from_an_array(tmp_path: Path, kind: str) -> None:
    images = FORMATS[kind].load(FORMATS[kind].write(tmp_path)).x_train
    x = want(kind)[0].astype(np.float32)
    slices = [slice(None), slice(3, 8), slice(-4, None, 2), slice(9, 2, -3), slice(5, 5), slice(8, 99)]
    arrays = [np.array([9, 0, 9]), np.array([[1, -1], [-2, 5]], np.int32), np.array(4, np.uint8), np.zeros((2, 0), int)]
    for rows in (*slices, *arrays):
        np.testing.assert_allclose(images[rows], x[rows], rtol=1e-7)
        assert images[rows].shape == x[rows].shape


def test_load_finds_the_format(tmp_path: Path, kind: str) -> None:
    path = FORMATS[kind].write(tmp_path)
    found, named = data.load(path), FORMATS[kind].load(path)
    assert data.fingerprint(found) == data.fingerprint(named)
    assert data.fingerprint(data.load(str(path))) == data.fingerprint(named)


def test_load_says_what_it_looked_for(tmp_path: Path) -> None:
    put(tmp_path, {"images.zip": b"", "notes/x_train.npy": b""})
    with pytest.raises(data.DataError) as caught:
        data.load(tmp_path)
    text = str(caught.value)
    assert text.startswith(f"{str(tmp_path)!r}: no data set that is known; looked for ")
    for pattern in ("train-images?idx3-ubyte*", "data_batch_*.bin", "x_train*.npy", "train"):
        assert repr(pattern) in text
    with pytest.raises(data.DataError, match="nowhere': No such file or directory"):
        data.load(tmp_path / "nowhere")


def test_threads_read_what_one_reads(tmp_path: Path, kind: str) -> None:
    images = FORMATS[kind].load(FORMATS[kind].write(tmp_path)).x_train
    rows = [np.random.default_rng(seed).integers(0, len(images), 7) for seed in range(40)]
    x = want(kind)[0].astype(np.float32)
    with ThreadPoolExecutor(8) as threads:
        for got, these in zip(threads.map(images.__getitem__, rows), rows, strict=True):
            np.testing.assert_allclose(got, x[these], rtol=1e-7)


def test_rows_that_are_not_there(tmp_path: Path, kind: str) -> None:
    images = FORMATS[kind].load(FORMATS[kind].write(tmp_path)).x_test
    count = len(images)
    for rows in (np.array([0, count]), np.array([-count - 1])):
        with pytest.raises(IndexError, match=rf"are asked for, of {count}$"):
            images[rows]
    for rows in (np.zeros(count, bool), np.array([1.0])):
        with pytest.raises(IndexError, match="by a slice or by integers, not by an array of"):
            images[rows]


def test_a_fingerprint_goes_by_content_not_by_format(tmp_path: Path) -> None:
    prints = {
        data.fingerprint(FORMATS[kind].load(FORMATS[kind].write(tmp_path / kind)))
        for kind in ("npz", "npz, compressed", "IDX", "IDX, compressed")
    }
    (one,) = prints
    assert len(one) == 16
    int(one, 16)
    in_memory = data.Dataset(
        *(GREY.x_train[..., None] / np.float32(255), GREY.y_train.astype(np.int32)),
        *(GREY.x_test[..., None] / np.float32(255), GREY.y_test.astype(np.int32)),
        classes=3,
    )
    assert data.fingerprint(in_memory) == one


def test_a_fingerprint_sees_what_differs(tmp_path: Path) -> None:
    dataset = data.load_digits()
    others = [
        dataset._replace(classes=11),
        dataset._replace(y_train=np.where(np.arange(1437) == 700, 0, dataset.y_train)),
        dataset._replace(x_train=dataset.x_train[:-1], y_train=dataset.y_train[:-1]),
        dataset._replace(x_test=dataset.x_test[:].reshape(-1, 4, 16, 1)),
        dataset._replace(x_test=dataset.x_test[::-1]),
        dataset._replace(x_train=dataset.x_train[:] * np.float32(1.0001)),
        dataset._replace(x_train=dataset.x_test, x_test=dataset.x_train),
    ]
    assert dataset.y_train[700] != 0
    prints = {data.fingerprint(each) for each in (dataset, *others)}
    assert len(prints) == 1 + len(others)


def test_a_plain_file_is_taken_rather_than_a_compressed_one(tmp_path: Path) -> None:
    put(tmp_path, idx_files() | dict.fromkeys(idx_files(".gz"), b"not gzip"))
    assert len(data.load(tmp_path).x_train) == 12
