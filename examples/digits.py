"""Loads scikit-learn's handwritten digits, the data set of the other examples."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32


class Digits(NamedTuple):
    """Images and labels, split into training and test sets."""

    x_train: Float32[np.ndarray, "1437 8 8 1"]
    y_train: Int32[np.ndarray, "1437"]
    x_test: Float32[np.ndarray, "360 8 8 1"]
    y_test: Int32[np.ndarray, "360"]


def load_digits() -> Digits:
    """Loads scikit-learn's handwritten digits: 1,797 greyscale images of 8×8 pixels in ten classes.

    The pixels are scaled from 0…16 to [0, 1]. The split is always the same: 1,437 images for training and 360 for
    testing, with the same proportions of the digits in both.

    Returns:
        The digits: images are float32 of shape (n, 8, 8, 1), labels are int32 of shape (n,).

    Raises:
        ImportError: scikit-learn is not installed.

    Example:
        >>> load_digits().x_test.shape
        (360, 8, 8, 1)
    """
    try:
        from sklearn.datasets import load_digits as load
        from sklearn.model_selection import StratifiedShuffleSplit
    except ImportError as error:
        wanted = 'python -m pip install "jaxbn[examples]"'
        raise ImportError(f"load_digits: the digits come with scikit-learn, which is missing; {wanted}") from error
    pixels, labels = load(return_X_y=True)
    train, test = next(StratifiedShuffleSplit(n_splits=1, test_size=360, random_state=0).split(pixels, labels))
    x = (np.asarray(pixels) / 16).astype(np.float32).reshape(-1, 8, 8, 1)
    y = np.asarray(labels).astype(np.int32)
    return Digits(x[train], y[train], x[test], y[test])
