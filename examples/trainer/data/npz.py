"""NumPy's `.npz` files: one archive of four arrays, read as a whole."""

import os
import zipfile
from typing import BinaryIO

import numpy as np
from jaxtyping import Shaped

from .dataset import Check, Dataset, Labels, Part, check_images, check_labels, checked, with_channels
from .errors import DataError, listed
from .files import check_deflate, check_memory, decompressed, errors_of_damage, opened, quoted
from .npy import Header, read_header
from .stored import Images, Shard, Shards, as_float32

_CHECKS = {"x_train": check_images, "y_train": check_labels, "x_test": check_images, "y_test": check_labels}


def load_npz(path: str | os.PathLike[str]) -> Dataset:
    """A `.npz` file with `x_train`, `y_train`, `x_test` and `y_test`, as Keras ships its data sets.

    Args:
        path: The file. Images are (n, height, width, channels), or (n, height, width) in greyscale: uint8, which is
            scaled from 0…255 to [0, 1], or floating, which is taken as it is. Labels are integers from 0, of shape (n,)
            or (n, 1), each below the number of training images: a larger one numbers something else than classes.

    Returns:
        The file's images and labels, as a `Dataset`, all of them in memory; uint8 images as `StoredImages` of as many
        bytes. `classes` is one more than the largest training label.

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
    with opened(path) as (stream, length):
        arrays = _read_archive(stream, length, quoted(path))
        names = {key: f"{quoted(path)}: `{key}`" for key in _CHECKS}
        train, test = (
            Part(_images(arrays[x], names[x]), [Labels(names[y], arrays[y])], f"`{x}`", f"`{y}`")
            for x, y in (("x_train", "y_train"), ("x_test", "y_test"))
        )
        return checked(train, test, quoted(path))


def _read_archive(stream: BinaryIO, length: int, name: str) -> dict[str, np.ndarray]:
    """The four arrays, once all four headers are known to be right."""
    try:
        archive = zipfile.ZipFile(stream)
    except MemoryError:
        raise
    except Exception:  # of many kinds
        raise DataError(f"{name}: not a .npz file, or one cut short; numpy.savez writes one") from None
    members = {
        member.filename.removesuffix(".npy"): member
        for member in archive.infolist()
        if member.filename.endswith(".npy")
    }
    missing = [key for key in _CHECKS if key not in members]
    if missing:
        raise DataError(f"{name}: no {listed(missing)} in it, but {listed(list(members)) or 'no arrays'}")
    headers = {
        key: _read_header(archive, members[key], length, check, f"{name}: `{key}`") for key, check in _CHECKS.items()
    }
    check_memory(sum(header.size for header in headers.values()), name)
    return {key: _read_array(archive, members[key], headers[key], f"{name}: `{key}`") for key in _CHECKS}


def _read_header(archive: zipfile.ZipFile, member: zipfile.ZipInfo, length: int, check: Check, name: str) -> Header:
    """The header of an array, which its member of the archive must hold, as the file must hold the member."""
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(f"{name} is compressed as NumPy does not; numpy.savez_compressed does it by deflate")
    if member.compress_size > length:
        raise DataError(f"{name} announces {member.compress_size} bytes in a file of {length}")
    check_deflate(member.file_size, member.compress_size, name)
    with errors_of_damage(name), archive.open(member) as stream:
        header = read_header(stream, member.file_size, name)
    check(header.shape, header.dtype, name)
    return header


def _read_array(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, header: Header, name: str
) -> Shaped[np.ndarray, "..."]:
    with errors_of_damage(name), archive.open(member) as stream:
        stream.read(header.offset)  # seeking would do without the checksum
        content = decompressed(stream, header.size, member.compress_size, name)
    return content.view(header.dtype).reshape(header.shape, order="F" if header.fortran_order else "C")


def _images(array: Shaped[np.ndarray, "n h w *c"], name: str) -> Images:
    pixels = with_channels(array)
    return Shards([Shard(name, pixels)]) if pixels.dtype == np.uint8 else as_float32(pixels, name)
