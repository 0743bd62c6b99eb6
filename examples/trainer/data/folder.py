"""A folder of images by class, `train/CLASS/…` and `test/CLASS/…`, read by Pillow."""

import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, Int, UInt8

from .dataset import Dataset
from .errors import DataError, listed
from .files import errors_of_damage, names_in, opened, quoted
from .stored import StoredImages, as_float32

_FORMATS = ("PNG", "JPEG", "BMP")
_CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}  # Pillow's modes of eight bits a channel

_Kind = tuple[tuple[int, int], str]  # width and height, mode


def load_folder(folder: str | os.PathLike[str]) -> Dataset:
    """A folder of images by class: `train/CLASS/*` and `test/CLASS/*`, PNG, JPEG or BMP.

    A label is the place of its class among the sorted names of those in `train`. All images are of one size and one
    mode, grey or colour, with or without transparency, eight bits a channel; every file's header is checked at once,
    and its pixels are read when they are asked for. What is hidden, as `.DS_Store`, is passed over. Pixels are taken as
    the file has them: an orientation that a camera has noted changes nothing.

    Args:
        folder: It.

    Returns:
        A `Dataset` whose images are `StoredImages`.

    Raises:
        DataError: a folder is missing or empty, a class is in `test` only, a file is no image, or not like the others;
            later, when images are read, that one of them is damaged.
        ImportError: Pillow is not installed.

    Example:
        >>> import tempfile; from pathlib import Path; from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("train/cat", "train/dog", "test/cat"):
        ...         Path(folder, name).mkdir(parents=True)
        ...         Image.new("RGB", (5, 4)).save(Path(folder, name, "1.png"))
        ...     load_folder(folder).x_train.shape
        (2, 4, 5, 3)
    """
    _pillow()
    parts = [_classes(os.path.join(os.fsdecode(folder), part)) for part in ("train", "test")]
    train, test = parts
    if len(train) < 2:
        raise DataError(f"{quoted(folder)}: {len(train)} classes in 'train'; at least two folders are wanted there")
    if not test:
        raise DataError(f"{quoted(folder)}: no classes in 'test'; at least one folder is wanted there")
    if unknown := [name for name in test if name not in train]:
        raise DataError(
            f"{quoted(folder)}: {listed(unknown)} in 'test', but not in 'train'; a class must be trained to be tested"
        )
    kind = _common_kind([path for part in parts for paths in part.values() for path in paths])
    images = (ImageFiles([path for paths in part.values() for path in paths], kind) for part in parts)
    numbers = {name: number for number, name in enumerate(train)}
    labels = (
        np.repeat([numbers[name] for name in part], [len(paths) for paths in part.values()]).astype(np.int32)
        for part in parts
    )
    (x_train, x_test), (y_train, y_test) = images, labels
    return Dataset(x_train, y_train, x_test, y_test, len(train))


class ImageFiles(StoredImages):
    """Images of one size and mode, each in its file."""

    def __init__(self, paths: Sequence[str], kind: _Kind):
        self._paths, self._kind = paths, kind
        (width, height), mode = kind
        super().__init__((len(paths), height, width, _CHANNELS[mode]))

    def _read(self, rows: Int[np.ndarray, " n"]) -> Float32[np.ndarray, "n h w c"]:
        images = np.empty((len(rows), *self.shape[1:]), np.float32)
        for image, row in zip(images, rows, strict=True):
            path = self._paths[int(row)]
            image[:] = as_float32(self._pixels(path), quoted(path)).reshape(image.shape)
        return images

    def _pixels(self, path: str) -> UInt8[np.ndarray, "h w *c"]:
        with opened(path) as (stream, _), errors_of_damage(quoted(path)):
            with _pillow().open(stream, formats=_FORMATS) as image:
                image.verify()  # a PNG's checksums, which are not looked at when its pixels are decoded
            with _pillow().open(stream, formats=_FORMATS) as image:
                if (image.size, image.mode) != self._kind:
                    raise DataError(f"{quoted(path)} has changed since its header was read")
                image.load()
                return np.asarray(image)


def _classes(folder: str) -> dict[str, list[str]]:
    """The paths of each class's files, classes and files in the order of their names."""
    classes = {}
    for name in names_in(folder):
        inside = os.path.join(folder, name)
        if not os.path.isdir(inside):
            raise DataError(f"{quoted(inside)} is no folder; here is one for each class, with its images in it")
        classes[name] = [os.path.join(inside, file) for file in names_in(inside)]
        if not classes[name]:
            raise DataError(f"{quoted(inside)} is empty; a class has at least one image")
    return classes


def _common_kind(paths: Sequence[str]) -> _Kind:
    """The size and mode of all, from the files' headers; no pixel is decoded."""
    # As errors: Pillow warns of images so large that they may be meant to fill the memory, and of broken headers.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kinds = (_kind_in(path) for path in paths)
        first = next(kinds)
        if first[1] not in _CHANNELS:
            raise DataError(f"{quoted(paths[0])} has Pillow's mode {first[1]}; {', '.join(_CHANNELS)} are wanted")
        for path, kind in zip(paths[1:], kinds, strict=True):
            if kind != first:
                raise DataError(
                    f"{quoted(path)} is {_described(kind)}, but {quoted(paths[0])} {_described(first)}; "
                    "all images must be alike"
                )
    return first


def _kind_in(path: str) -> _Kind:
    with opened(path) as (stream, _):
        try:
            with _pillow().open(stream, formats=_FORMATS) as image:
                return image.size, image.mode
        except MemoryError:
            raise
        except Exception:  # of many kinds, and warnings
            raise DataError(
                f"{quoted(path)} is no image that can be used; {', '.join(_FORMATS)} are read, and no larger than "
                f"{_pillow().MAX_IMAGE_PIXELS} pixels"
            ) from None


def _described(kind: _Kind) -> str:
    (width, height), mode = kind
    return f"{mode} of {width} by {height} pixels"


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        wanted = 'python -m pip install "jaxbn[examples]"'
        raise ImportError(f"load_folder: images are read by Pillow, which is missing; {wanted}") from error
    return Image
