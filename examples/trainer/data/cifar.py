"""CIFAR-10's binary version: 32×32 in colour, ten classes, in records of one length.

record   1 byte of the label, then 1,024 of red, 1,024 of green, 1,024 of blue, each row by row
"""

import os

import numpy as np
from jaxtyping import UInt8

from .dataset import Dataset, Labels, Part, checked
from .errors import DataError
from .files import opened, quoted
from .stored import Shard, Shards

_CLASSES = 10
_PLANES = (3, 32, 32)
_RECORD = 1 + 3 * 32 * 32
_TRAIN = tuple(f"data_batch_{number}.bin" for number in range(1, 6))


def load_cifar10(folder: str | os.PathLike[str]) -> Dataset:
    """CIFAR-10's binary version: `data_batch_1.bin` to `data_batch_5.bin` and `test_batch.bin`.

    The files are mapped, and read when their images are asked for.

    Args:
        folder: Where the six files are, in the archive `cifar-10-batches-bin`.

    Returns:
        A `Dataset` of ten classes whose images are `StoredImages`, (n, 32, 32, 3). The files must stay as they are
        while it is used: one that is cut short meanwhile ends the process.

    Raises:
        DataError: a file is missing, or is not made of such records.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     for name in (*_TRAIN, "test_batch.bin"):
        ...         _ = Path(folder, name).write_bytes(bytes([0] * 3073 + [9] * 3073))
        ...     load_cifar10(folder).x_train.shape
        (10, 32, 32, 3)
    """
    train, test = (_part(folder, names) for names in (_TRAIN, ("test_batch.bin",)))
    return checked(train, test, quoted(folder), classes=_CLASSES)


def _part(folder: str | os.PathLike[str], names: tuple[str, ...]) -> Part:
    shards, labels = [], []
    for name in names:
        path = os.path.join(os.fsdecode(folder), name)
        records = _records(path)
        # Views of the map, which read nothing: planes become the last axis.
        planes = records[:, 1:].reshape(-1, *_PLANES)
        shards.append(Shard(quoted(path), planes.transpose(0, 2, 3, 1)))
        labels.append(_labels(records, quoted(path)))
    return Part(Shards(shards), labels, "the batches", "the batches")


def _records(path: str) -> UInt8[np.ndarray, "n record"]:
    with opened(path) as (stream, length):
        count, rest = divmod(length, _RECORD)
        if rest or not count:
            raise DataError(f"{quoted(path)} has {length} bytes; one or more records of {_RECORD} bytes are wanted")
        return np.asarray(np.memmap(stream, np.uint8, "r", shape=(count, _RECORD)))


def _labels(records: UInt8[np.ndarray, "n record"], name: str) -> Labels:
    labels = records[:, 0]
    if labels.max() >= _CLASSES:
        raise DataError(f"{name} holds the label {labels.max()}; CIFAR-10's are from 0 to {_CLASSES - 1}")
    return Labels(name, labels)
