"""Images that stay in their files, or in memory as bytes, until some of them are asked for."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Float32, Int, Integer, Shaped

from .errors import DataError


class Images(Protocol):
    """What a `Dataset` needs of its images: a NumPy array of float32 is such, and so are `StoredImages`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, height, width, channels)"""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> np.ndarray: ...


class StoredImages(ABC):
    """Images that are read when they are asked for, and no others with them.

    They are indexed as the first axis of an array is, by a slice or by integers; several threads may do so at once.

        images[rows][i, …] = images[rows[i, …]],  float32 of shape (*rows.shape, height, width, channels)

    A kind of them has `_read`.

    Example:
        >>> pixels = np.arange(24, dtype=np.uint8).reshape(6, 2, 2, 1)
        >>> images = Shards([Shard("pixels", pixels)])
        >>> images.shape, images[:4].shape, images[np.array([[5, 0, 5]])].shape
        ((6, 2, 2, 1), (4, 2, 2, 1), (1, 3, 2, 2, 1))
    """

    def __init__(self, shape: tuple[int, ...]):
        self.shape = shape

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | Integer[np.ndarray, "*rows"]) -> Float32[np.ndarray, "*rows h w c"]:
        rows = self._numbers(rows)
        try:
            return self._read(rows.ravel()).reshape(*rows.shape, *self.shape[1:])
        except MemoryError:
            raise DataError(f"{rows.size} images at once are larger than the memory that is left") from None

    @abstractmethod
    def _read(self, rows: Int[np.ndarray, " n"]) -> Float32[np.ndarray, "n h w c"]:
        """The images of these numbers, each of which exists."""

    def _numbers(self, rows: slice | Integer[np.ndarray, "*rows"]) -> Int[np.ndarray, "*rows"]:
        """From 0, as for an array: negative ones count from the end."""
        count = len(self)
        if isinstance(rows, slice):
            return np.arange(*rows.indices(count))
        rows = np.asarray(rows)
        if rows.dtype.kind not in "iu":
            raise IndexError(f"images are indexed by a slice or by integers, not by an array of {rows.dtype}")
        if rows.size and not -count <= rows.min() <= rows.max() < count:
            raise IndexError(f"images {rows.min()} to {rows.max()} are asked for, of {count}")
        rows = rows.astype(np.int64)
        return np.where(rows < 0, rows + count, rows)


class Shard(NamedTuple):
    """Some of the images, in an array or a memory map."""

    name: str  # for errors
    pixels: Shaped[np.ndarray, "n h w c"]  # uint8 or floating


class Shards(StoredImages):
    """Images in one array behind another, most often memory maps."""

    def __init__(self, shards: Sequence[Shard]):
        self._shards = shards
        self._ends = np.cumsum([len(shard.pixels) for shard in shards])
        super().__init__((int(self._ends[-1]), *shards[0].pixels.shape[1:]))

    def _read(self, rows: Int[np.ndarray, " n"]) -> Float32[np.ndarray, "n h w c"]:
        images = np.empty((len(rows), *self.shape[1:]), np.float32)
        numbers = np.searchsorted(self._ends, rows, side="right")
        for number in np.unique(numbers):
            name, pixels = self._shards[number]
            here = numbers == number
            images[here] = as_float32(pixels[rows[here] - (self._ends[number] - len(pixels))], name)
        return images


def as_float32(pixels: Shaped[np.ndarray, "*shape"], name: str) -> Float32[np.ndarray, "*shape"]:
    """uint8 scaled from 0…255 to [0, 1]; floating as it is, where it is finite."""
    if pixels.dtype == np.uint8:
        return pixels / np.float32(255)
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is caught on the next line
        images = pixels.astype(np.float32, copy=False)
    bad = images.size - np.count_nonzero(np.isfinite(images))
    if bad:
        raise DataError(f"{name} holds {bad} NaN or infinite values (in float32); every pixel must be finite")
    return images
