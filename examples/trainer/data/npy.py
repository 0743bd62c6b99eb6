"""NumPy's `.npy` files: their header, and folders of them."""

import math
import os
import re
import warnings
from collections.abc import Sequence
from io import BytesIO
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped

from .dataset import Check, Dataset, Labels, Part, check_images, check_labels, checked, with_channels
from .errors import DataError
from .files import Stream, names_in, opened, quoted
from .stored import Shard, Shards

_LONGEST_HEADER = 16_384  # NumPy itself refuses more than 10,000 characters


class Header(NamedTuple):
    """What a `.npy` file says of its array."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran_order: bool
    offset: int  # bytes before the array's

    @property
    def size(self) -> int:
        """The array's bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(stream: Stream, length: int, name: str) -> Header:
    """The header, and that the array behind it ends where the stream's `length` bytes do."""
    start = BytesIO(stream.read(_LONGEST_HEADER))  # so that no more is read, however long it says that it is
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Python 2, of escapes in strings
            version = np.lib.format.read_magic(start)
            read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
            shape, fortran_order, dtype = read(start)
    except Exception:  # of many kinds: it is Python's syntax
        raise DataError(f"{name} does not begin as a .npy array does") from None
    header = Header(shape, dtype, fortran_order, start.tell())
    if dtype.hasobject:
        raise DataError(f"{name} holds pickled objects, which are never read; make it an array of numbers")
    if min(shape, default=0) < 0 or header.offset + header.size != length:
        raise DataError(
            f"{name} holds {length - header.offset} bytes behind its header, which announces an array of "
            f"shape {shape} and dtype {dtype}"
        )
    return header


def load_npy(folder: str | os.PathLike[str]) -> Dataset:
    """A folder of `.npy` files, for images that are larger than memory: they are mapped, and read when asked for.

    `x_train.npy`, `y_train.npy`, `x_test.npy` and `y_test.npy`. Each may be in several files instead, whose arrays are
    taken one behind the other: `x_train-00000.npy`, `x_train-00001.npy`, …

    Args:
        folder: It. Images and labels are as for `load_npz`; images of several files are alike but for their number.

    Returns:
        A `Dataset` whose images are `StoredImages`. The files must stay as they are while it is used: one that is cut
        short meanwhile ends the process, as any memory map does. Each is kept open.

    Raises:
        DataError: a file is missing, is no `.npy` file, or holds something that cannot be trained on; later, when
            floating images are read, that one of their pixels is not finite.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> x, y = np.zeros((6, 28, 28), np.uint8), np.arange(6) % 2
        >>> with TemporaryDirectory() as folder:
        ...     for name, array in {"x_train": x, "y_train": y, "x_test-00000": x, "x_test-00001": x}.items():
        ...         np.save(f"{folder}/{name}.npy", array)
        ...     np.save(f"{folder}/y_test.npy", np.arange(12) % 2)
        ...     load_npy(folder).x_test.shape
        (12, 28, 28, 1)
    """
    train, test = (
        Part(_images(folder, f"x_{part}"), _labels(folder, f"y_{part}"), f"`x_{part}`", f"`y_{part}`")
        for part in ("train", "test")
    )
    return checked(train, test, quoted(folder))


def _images(folder: str | os.PathLike[str], key: str) -> Shards:
    shards = []
    for path in _files(folder, key):
        pixels = with_channels(_mapped(path, check_images))
        shards.append(Shard(quoted(path), pixels))
        first = shards[0]
        if pixels.shape[1:] != first.pixels.shape[1:] or pixels.dtype != first.pixels.dtype:
            raise DataError(
                f"{quoted(path)} holds images of {pixels.dtype}{list(pixels.shape[1:])}, but {first.name} of "
                f"{first.pixels.dtype}{list(first.pixels.shape[1:])}; they must be alike"
            )
    return Shards(shards)


def _labels(folder: str | os.PathLike[str], key: str) -> list[Labels]:
    return [Labels(quoted(path), _mapped(path, check_labels)) for path in _files(folder, key)]


def _files(folder: str | os.PathLike[str], key: str) -> Sequence[str]:
    """The file of an array, or the files of its parts in their order."""
    names = names_in(folder)
    numbered = [(int(match[1]), name) for name in names if (match := re.fullmatch(rf"{key}-([0-9]+)\.npy", name))]
    parts = [name for _, name in sorted(numbered)]
    if f"{key}.npy" in names:
        if parts:
            raise DataError(f"{quoted(folder)}: both '{key}.npy' and {parts[0]!r} in it; one of the two is wanted")
        parts = [f"{key}.npy"]
    elif not parts:
        raise DataError(f"{quoted(folder)}: no '{key}.npy' in it, and no '{key}-00000.npy'")
    elif [number for number, _ in sorted(numbered)] != list(range(len(parts))):
        raise DataError(f"{quoted(folder)}: {len(parts)} files '{key}-….npy', not numbered 0 to {len(parts) - 1}")
    return [os.path.join(os.fsdecode(folder), name) for name in parts]


def _mapped(path: str, check: Check) -> Shaped[np.ndarray, "..."]:
    with opened(path) as (stream, length):
        header = read_header(stream, length, quoted(path))
        check(header.shape, header.dtype, quoted(path))
        order = "F" if header.fortran_order else "C"
        return np.asarray(np.memmap(stream, header.dtype, "r", header.offset, header.shape, order))
