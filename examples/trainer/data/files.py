"""How files are opened and read: nothing is allocated for what a file of this length cannot hold."""

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, Protocol

import numpy as np
from jaxtyping import UInt8

from .errors import DataError

# Deflate spends two bits at least on a repetition, which is of 258 bytes at most: it makes no more of any input.
_DEFLATE = 258 * 8 // 2

_CHUNK = 1 << 20  # of what is decompressed at a time


class Stream(Protocol):
    """Bytes in their order, perhaps decompressed on the way."""

    def read(self, size: int, /) -> bytes: ...


def quoted(path: str | os.PathLike[str]) -> str:
    """A path for a message: in quotes, of one line whatever is in it."""
    return repr(os.fsdecode(path))


@contextmanager
def errors_of(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turns what the system says of a file into a `DataError`."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{quoted(path)}: {error.strerror or error}") from None
    except MemoryError:
        raise DataError(f"{quoted(path)} is larger than the memory that is left") from None


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[tuple[BinaryIO, int]]:
    """The file, to be read, and its length in bytes."""
    with errors_of(path):
        kind = os.stat(path).st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):  # opening a pipe would wait for its other end
            raise DataError(f"{quoted(path)} is a device or a pipe; a file is wanted")
        with open(path, "rb") as stream:
            yield stream, os.fstat(stream.fileno()).st_size


def names_in(folder: str | os.PathLike[str]) -> list[str]:
    """What a folder holds, sorted, without what is hidden."""
    with errors_of(folder):
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))


def decompressed(stream: Stream, size: int, compressed: int, name: str) -> UInt8[np.ndarray, " size"]:
    """What is left of a decompressing stream, which must be `size` bytes; no more than one beyond them is ever read.

    `compressed` is their length in the file.
    """
    check_memory(size, name)
    check_deflate(size, compressed, name)
    content, done = np.empty(size, np.uint8), 0
    with errors_of_damage(name):
        while done < size and (piece := stream.read(min(size - done, _CHUNK))):
            content[done : done + len(piece)] = np.frombuffer(piece, np.uint8)
            done += len(piece)
        if done < size:
            raise DataError(f"{name} ends {size - done} bytes before what its header announces")
        if stream.read(1):  # at the end, and only there, a checksum is compared
            raise DataError(f"{name} goes on behind the {size} bytes that its header announces")
    return content


@contextmanager
def errors_of_damage(name: str) -> Iterator[None]:
    """Damage makes zipfile, gzip, zlib, NumPy and Pillow raise almost anything; to the user it is one thing."""
    try:
        yield
    except (DataError, MemoryError):
        raise
    except Exception:
        raise DataError(f"{name} is damaged and cannot be read") from None


def check_deflate(size: int, compressed: int, name: str) -> None:
    if size > _DEFLATE * compressed:
        raise DataError(f"{name} announces {size} bytes, more than its {compressed} compressed bytes can hold")


def check_memory(size: int, name: str) -> None:
    if size > _memory():
        raise DataError(
            f"{name} is larger than this machine's memory ({size} bytes); plain IDX files and .npy files are mapped "
            "instead"
        )


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # a system that does not say
        return sys.maxsize
