"""Data sets of labelled images, one function a file format.

Every function returns a `Dataset` that is ready to train on, or raises `DataError`, whose message is one line: the
file, the key, what came and what is wanted. Nothing is ever unpickled.
"""

import os
import zipfile
from collections.abc import Sequence
from typing import BinaryIO, NamedTuple, Protocol

import numpy as np
from jaxtyping import Float32, Int32

_KEYS = ("x_train", "y_train", "x_test", "y_test")


class DataError(ValueError):
    """A data file that cannot be used; the message is one line for the person who chose the file.

    Example:
        >>> try:
        ...     load_npz("nowhere.npz")
        ... except DataError as error:
        ...     print(error)
        'nowhere.npz': No such file or directory
    """


class Images(Protocol):
    """Images that can be read by their numbers: a NumPy array, or what reads a file when asked."""

    @property
    def shape(self) -> tuple[int, ...]:
        """As (n, height, width, channels)."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice | np.ndarray, /) -> Float32[np.ndarray, "*rows height width channels"]: ...


class Dataset(NamedTuple):
    """Labelled images, split for training and testing.

    Example:
        >>> dataset = load_digits()
        >>> dataset.x_train.shape, dataset.y_test.shape, dataset.classes
        ((1437, 8, 8, 1), (360,), 10)
    """

    x_train: Images
    y_train: Int32[np.ndarray, " train"]
    x_test: Images
    y_test: Int32[np.ndarray, " test"]
    classes: int  # every label is in [0, classes)


def load_digits() -> Dataset:
    """scikit-learn's handwritten digits: 1,797 greyscale images of 8×8, ten classes.

    The pixels are scaled from 0…16 to [0, 1]. The split is always the same one: 1,437 images to train on and 360 to
    test on, with each digit's share alike in both.

    Returns:
        The digits, as a `Dataset`; images float32 of shape (n, 8, 8, 1), labels int32 of shape (n,).

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
    return Dataset(x[train], y[train], x[test], y[test], classes=10)


def load_npz(path: str | os.PathLike[str]) -> Dataset:
    """A `.npz` file with `x_train`, `y_train`, `x_test` and `y_test`, as Keras ships its data sets.

    Args:
        path: The file. Images are (n, height, width, channels), or (n, height, width) in greyscale: uint8, which is
            scaled from 0…255 to [0, 1], or floating, which is taken as it is. Labels are integers from 0, of shape (n,)
            or (n, 1), each below the number of training images: a larger one numbers something else than classes.

    Returns:
        The file's images and labels, as a `Dataset`; `classes` is one more than the largest training label.

    Raises:
        DataError: the file cannot be read, is no `.npz`, lacks a key, or holds something that cannot be trained on.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> x, y = np.zeros((6, 28, 28), np.uint8), np.arange(6) % 2
        >>> with TemporaryDirectory() as folder:
        ...     np.savez(f"{folder}/two.npz", x_train=x, y_train=y, x_test=x, y_test=y)
        ...     load_npz(f"{folder}/two.npz").x_train.shape
        (6, 28, 28, 1)
    """
    name = repr(os.fspath(path))
    arrays = _read_npz(path, name)
    x_train, x_test = (_images(arrays[key], f"{name}: `{key}`") for key in ("x_train", "x_test"))
    y_train, y_test = (_labels(arrays[key], f"{name}: `{key}`") for key in ("y_train", "y_test"))
    return _checked(x_train, y_train, x_test, y_test, name)


def _read_npz(path: str | os.PathLike[str], name: str) -> dict[str, np.ndarray]:
    """The four arrays as the file holds them; `name` is the file's, for the errors."""
    try:
        with open(path, "rb") as stream:
            return _read_archive(stream, name)
    except OSError as error:
        raise DataError(f"{name}: {error.strerror}") from None


def _read_archive(stream: BinaryIO, name: str) -> dict[str, np.ndarray]:
    try:
        archive = zipfile.ZipFile(stream)
    except Exception:  # of many kinds, as below
        raise DataError(f"{name}: not a .npz file, or one cut short; numpy.savez writes one") from None
    found = [member.removesuffix(".npy") for member in archive.namelist() if member.endswith(".npy")]
    missing = [key for key in _KEYS if key not in found]
    if missing:
        raise DataError(f"{name}: no {_listed(missing)} in it, but {_listed(found) or 'no arrays'}")
    return {key: _read_array(archive, key, f"{name}: `{key}`") for key in _KEYS}


def _read_array(archive: zipfile.ZipFile, key: str, name: str) -> np.ndarray:
    try:
        with archive.open(f"{key}.npy") as member:
            array = np.lib.format.read_array(member, allow_pickle=False)
            # The archive's checksum is compared only at its end, which an array of a wrong header may not reach.
            if member.read(1):
                raise ValueError("bytes behind the array")
    except MemoryError:
        raise DataError(f"{name} is larger than this machine's memory") from None
    except Exception as error:
        # Damage makes zipfile, zlib and NumPy raise almost anything; to the user it is one thing.
        if "allow_pickle" in str(error):
            raise DataError(
                f"{name} holds pickled objects, which are never read; make it an array of numbers"
            ) from None
        raise DataError(f"{name} is damaged and cannot be read") from None
    return array


def _images(array: np.ndarray, name: str) -> Float32[np.ndarray, "n height width channels"]:
    """Images of any accepted form as float32 NHWC."""
    if array.dtype != np.uint8 and array.dtype.kind != "f":
        raise DataError(f"{name} has dtype {array.dtype}; images are uint8 (0 to 255) or floating")
    if array.ndim not in (3, 4):
        raise DataError(
            f"{name} has shape {array.shape}; images are (n, height, width, channels) or, grey, (n, height, width)"
        )
    if array.size == 0:
        what = "no images" if len(array) == 0 else "images without pixels"
        raise DataError(f"{name} has shape {array.shape}: {what}; at least one image of one pixel is wanted")
    if array.dtype == np.uint8:
        images = array / np.float32(255)
    else:
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is caught on the next line
            images = array.astype(np.float32)
        bad = images.size - np.count_nonzero(np.isfinite(images))
        if bad:
            raise DataError(f"{name} holds {bad} NaN or infinite values (in float32); every pixel must be finite")
    return images if images.ndim == 4 else images[..., np.newaxis]


def _labels(array: np.ndarray, name: str) -> Int32[np.ndarray, " n"]:
    """Labels of any accepted form as int32 of one axis."""
    if array.dtype.kind not in "iu":
        raise DataError(f"{name} has dtype {array.dtype}; labels are integers")
    if array.ndim != 1 and array.shape[1:] != (1,):
        raise DataError(f"{name} has shape {array.shape}; labels are (n,) or (n, 1)")
    if array.size and not 0 <= array.min() <= array.max() < np.iinfo(np.int32).max:
        raise DataError(f"{name} holds labels from {array.min()} to {array.max()}; labels count from 0")
    return array.reshape(-1).astype(np.int32)


def _checked(
    x_train: Float32[np.ndarray, "train height width channels"],
    y_train: Int32[np.ndarray, " train"],
    x_test: Float32[np.ndarray, "test height width channels"],
    y_test: Int32[np.ndarray, " test"],
    name: str,
) -> Dataset:
    """The four arrays as a data set, once they are known to belong together."""
    for part, images, labels in (("train", x_train, y_train), ("test", x_test, y_test)):
        if len(images) != len(labels):
            raise DataError(
                f"{name}: {len(images)} images in `x_{part}`, but {len(labels)} labels in `y_{part}`; "
                "each image has one label"
            )
    if x_train.shape[1:] != x_test.shape[1:]:
        raise DataError(
            f"{name}: images of {_by(x_train)} in `x_train`, but of {_by(x_test)} in `x_test`; they must be alike"
        )
    first, last = y_train.min(), y_train.max()
    if first == last:
        raise DataError(f"{name}: every label in `y_train` is {first}; at least two classes are wanted")
    if last >= len(y_train):
        raise DataError(
            f"{name}: `y_train` holds the label {last} among only {len(y_train)} images; number the classes 0, 1, 2, …"
        )
    if y_test.max() > last:
        raise DataError(
            f"{name}: `y_test` holds the label {y_test.max()}, `y_train` none above {last}; "
            "a class must be trained to be tested"
        )
    return Dataset(x_train, y_train, x_test, y_test, classes=int(last) + 1)


def _listed(keys: Sequence[str]) -> str:
    """Keys in quotes, with commas; a long list is cut."""
    return ", ".join(map(repr, keys[:6])) + (", …" if len(keys) > 6 else "")


def _by(images: np.ndarray) -> str:
    return "×".join(map(str, images.shape[1:]))
