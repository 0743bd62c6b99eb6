"""IDX files, as MNIST and Fashion-MNIST ship them: four files, each compressed by gzip or not.

magic   0x00000801 for labels, 0x00000803 for images: a byte a number, of so many axes
sides   one 32-bit integer an axis, the highest byte first
bytes   to the file's end
"""

import gzip
import math
import os
import struct

import numpy as np
from jaxtyping import UInt8

from .dataset import Dataset, Labels, Part, checked, with_channels
from .errors import DataError, by
from .files import Stream, decompressed, errors_of_damage, names_in, opened, quoted
from .stored import Shard, Shards


def load_idx(folder: str | os.PathLike[str]) -> Dataset:
    """A folder of IDX files, as MNIST and Fashion-MNIST ship them.

    `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte` and `t10k-labels-idx1-ubyte`, also
    spelt `train-images.idx3-ubyte`, each as it is or with `.gz`. A plain file is mapped, and read when its images are
    asked for; a compressed one is unpacked into memory, as long as it is what its header announces.

    Args:
        folder: It.

    Returns:
        A `Dataset` whose images are `StoredImages` in greyscale; `classes` is one more than the largest training label.
        Plain files must stay as they are while it is used: one that is cut short meanwhile ends the process.

    Raises:
        DataError: a file is missing, or is not what its header and its name say.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for part in ("train", "t10k"):
        ...         _ = Path(folder, f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4i40x", 0x803, 2, 5, 4))
        ...         _ = Path(folder, f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2i2b", 0x801, 2, 0, 1))
        ...     load_idx(folder).x_train.shape
        (2, 5, 4, 1)
    """
    return checked(_part(folder, "train"), _part(folder, "t10k"), quoted(folder))


def _part(folder: str | os.PathLike[str], part: str) -> Part:
    images, labels = f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"
    return Part(_images(_find(folder, images)), _labels(_find(folder, labels)), repr(images), repr(labels))


def _find(folder: str | os.PathLike[str], name: str) -> str:
    """The file's path, however it is spelt; a plain one rather than a compressed one."""
    names = names_in(folder)
    for spelling in (name, name.replace("-idx", ".idx")):
        for found in (spelling, f"{spelling}.gz"):
            if found in names:
                return os.path.join(os.fsdecode(folder), found)
    raise DataError(f"{quoted(folder)}: no {name!r} in it, and no '{name}.gz'")


def _images(path: str) -> Shards:
    return Shards([Shard(quoted(path), with_channels(_read(path, axes=3)))])


def _labels(path: str) -> list[Labels]:
    return [Labels(quoted(path), _read(path, axes=1))]


def _read(path: str, axes: int) -> UInt8[np.ndarray, "*sides"]:
    """A plain file's bytes are mapped, a compressed one's are read."""
    name = quoted(path)
    with opened(path) as (stream, length):
        if not path.endswith(".gz"):
            sides = _read_sides(stream, axes, name)
            offset = stream.tell()
            if offset + math.prod(sides) != length:
                raise DataError(f"{name} has {length} bytes; its header announces {offset} and {by(sides)} behind it")
            return np.asarray(np.memmap(stream, np.uint8, "r", offset, sides))
        with errors_of_damage(name), gzip.GzipFile(fileobj=stream) as unpacked:
            sides = _read_sides(unpacked, axes, name)
            return decompressed(unpacked, math.prod(sides), length, name).reshape(sides)


def _read_sides(stream: Stream, axes: int, name: str) -> tuple[int, ...]:
    magic, header = 0x800 + axes, stream.read(4 + 4 * axes)
    if header[:4] != magic.to_bytes(4):
        raise DataError(f"{name} begins with '{header[:4].hex()}'; such an IDX file begins with '{magic:08x}'")
    if len(header) < 4 + 4 * axes:
        raise DataError(f"{name} ends within its header")
    sides = struct.unpack(f">{axes}I", header[4:])
    if 0 in sides:
        raise DataError(f"{name} announces {by(sides)} bytes; at least one is wanted")
    return sides
