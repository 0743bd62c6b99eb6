"""The handwritten digits that come with scikit-learn."""

import sys

import numpy as np
import pytest

from examples.trainer import data


def test_the_digits() -> None:
    dataset, again = data.load_digits(), data.load_digits()
    assert dataset.x_train.shape == (1437, 8, 8, 1)
    assert dataset.x_test.shape == (360, 8, 8, 1)
    assert dataset.x_train[:].dtype == dataset.x_test[:].dtype == np.float32
    assert dataset.y_train.dtype == dataset.y_test.dtype == np.int32
    assert dataset.x_train[:].min() == 0
    assert dataset.x_train[:].max() == 1
    assert dataset.classes == 10
    for first, second in zip(dataset, again, strict=True):
        np.testing.assert_array_equal(first, second)


def test_the_digits_split_is_stratified_and_whole() -> None:
    from sklearn.datasets import load_digits

    dataset = data.load_digits()
    share = np.bincount(dataset.y_test) / np.bincount(np.concatenate([dataset.y_train, dataset.y_test]))
    np.testing.assert_allclose(share, 360 / 1797, atol=0.005)
    pixels, labels = load_digits(return_X_y=True)
    want = sorted((int(label), tuple(image)) for label, image in zip(labels, np.asarray(pixels), strict=True))
    x, y = np.concatenate([dataset.x_train[:], dataset.x_test[:]]), np.concatenate([dataset.y_train, dataset.y_test])
    got = sorted((int(label), tuple(16.0 * image.ravel())) for label, image in zip(y, x, strict=True))
    assert got == want


def test_the_digits_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"scikit-learn, which is missing; python -m pip install .*jaxbn\[examples\]"):
        data.load_digits()
