"""What every format becomes: a `Dataset`, whose parts are checked here, the same for all formats."""

import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, Shaped

from .errors import DataError, by
from .stored import Images


class Dataset(NamedTuple):
    """Labelled images, split for training and testing.

    The images are float32 when they are indexed: `dataset.x_train[rows]`, with a slice or an array of integers. They
    are an array, or `StoredImages`, which hold the file's own bytes, or only know where they are.

    Example:
        >>> from examples.trainer import data
        >>> dataset = data.load_digits()
        >>> dataset.x_train.shape, dataset.y_test.shape, dataset.classes
        ((1437, 8, 8, 1), (360,), 10)
    """

    x_train: Images  # float32 (train, height, width, channels)
    y_train: Int32[np.ndarray, " train"]
    x_test: Images  # float32 (test, height, width, channels)
    y_test: Int32[np.ndarray, " test"]
    classes: int  # every label is in [0, classes)


class Labels(NamedTuple):
    """Some of the labels, in an array or a memory map."""

    name: str  # for errors
    numbers: Shaped[np.ndarray, "n *one"]  # of any integer type


class Part(NamedTuple):
    """The images of training or of testing with their labels, and what their file calls each."""

    images: Images
    labels: Sequence[Labels]  # one behind the other; mapped ones are read once there are known to be as many as images
    images_name: str
    labels_name: str


# Of shape, dtype and name: what can be told before anything is read.
Check = Callable[[tuple[int, ...], np.dtype, str], None]


def check_images(shape: tuple[int, ...], dtype: np.dtype, name: str) -> None:
    if dtype != np.uint8 and dtype.kind != "f":
        raise DataError(f"{name} has dtype {dtype}; images are uint8 (0 to 255) or floating")
    if len(shape) not in (3, 4):
        raise DataError(
            f"{name} has shape {shape}; images are (n, height, width, channels) or, grey, (n, height, width)"
        )
    if 0 in shape:
        what = "no images" if shape[0] == 0 else "images without pixels"
        raise DataError(f"{name} has shape {shape}: {what}; at least one image of one pixel is wanted")


def check_labels(shape: tuple[int, ...], dtype: np.dtype, name: str) -> None:
    if dtype.kind not in "iu":
        raise DataError(f"{name} has dtype {dtype}; labels are integers")
    if len(shape) != 1 and shape[1:] != (1,):
        raise DataError(f"{name} has shape {shape}; labels are (n,) or (n, 1)")


def with_channels(pixels: Shaped[np.ndarray, "n h w *c"]) -> Shaped[np.ndarray, "n h w c"]:
    """Grey images get their one channel; no byte is touched."""
    return pixels if pixels.ndim == 4 else pixels[..., np.newaxis]


def _as_int32(labels: Labels) -> Int32[np.ndarray, " n"]:
    """Labels of any integer type as int32 of one axis."""
    name, numbers = labels
    if numbers.size and not 0 <= numbers.min() <= numbers.max() < np.iinfo(np.int32).max:
        raise DataError(f"{name} holds labels from {numbers.min()} to {numbers.max()}; labels count from 0")
    return numbers.reshape(-1).astype(np.int32)


def _labels_of(part: Part, name: str) -> Int32[np.ndarray, " n"]:
    """The labels, of which there must be as many as images: until that is known, none is read."""
    count = sum(len(labels.numbers) for labels in part.labels)
    if len(part.images) != count:
        raise DataError(
            f"{name}: {len(part.images)} images in {part.images_name}, but {count} labels in {part.labels_name}; "
            "each image has one label"
        )
    try:
        return np.concatenate([_as_int32(labels) for labels in part.labels])
    except MemoryError:
        raise DataError(f"{name}: the labels in {part.labels_name} are larger than the memory that is left") from None


def checked(train: Part, test: Part, name: str, classes: int | None = None) -> Dataset:
    """The two parts as a data set, once they are known to belong together.

    `classes` is for formats that say how many there are, and whose labels are known to be of them; for others it is one
    more than the largest training label.
    """
    y_train, y_test = (_labels_of(part, name) for part in (train, test))
    if train.images.shape[1:] != test.images.shape[1:]:
        raise DataError(
            f"{name}: images of {by(train.images.shape[1:])} in {train.images_name}, but of "
            f"{by(test.images.shape[1:])} in {test.images_name}; they must be alike"
        )
    first, last = y_train.min(), y_train.max()
    if first == last:
        raise DataError(f"{name}: every label in {train.labels_name} is {first}; at least two classes are wanted")
    if classes is None:
        classes = int(last) + 1
        if last >= len(y_train):
            raise DataError(
                f"{name}: {train.labels_name} holds the label {last} among only {len(y_train)} images; "
                "number the classes 0, 1, 2, …"
            )
        if y_test.max() > last:
            raise DataError(
                f"{name}: {test.labels_name} holds the label {y_test.max()}, {train.labels_name} none above "
                f"{last}; a class must be trained to be tested"
            )
    return Dataset(train.images, y_train, test.images, y_test, classes)


def fingerprint(dataset: Dataset) -> str:
    """Sixteen hexadecimal digits that differ between data sets, as a run that resumes must not be given another one.

        the first half of SHA-256 (shapes, classes, every label, the pixels of 16 images from each part)

    The images are the first, the last, and those at equal distances between: of a data set larger than memory too, it
    takes an instant. That the pixels of another image have changed, it does not see. It depends on what is in the data
    set, not on its format.

    Args:
        dataset: Any.

    Returns:
        The digits.

    Raises:
        DataError: the images are stored, and one of those cannot be read.

    Example:
        >>> from examples.trainer import data
        >>> digits = data.load_digits()
        >>> fingerprint(digits) == fingerprint(data.load_digits())
        True
        >>> fingerprint(digits) == fingerprint(digits._replace(y_test=digits.y_test[::-1]))
        False
    """
    digest = hashlib.sha256(f"{dataset.x_train.shape} {dataset.x_test.shape} {dataset.classes}".encode())
    for images, labels in ((dataset.x_train, dataset.y_train), (dataset.x_test, dataset.y_test)):
        some = images[np.arange(16) * (len(images) - 1) // 15]
        digest.update(labels.astype("<i4").tobytes())
        digest.update(some.astype("<f4").tobytes())
    return digest.hexdigest()[:16]
