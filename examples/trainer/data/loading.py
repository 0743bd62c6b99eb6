"""Any data set that this package reads, found by what is there."""

import os
from fnmatch import filter as matching

from .cifar import load_cifar10
from .dataset import Dataset
from .errors import DataError
from .files import names_in, quoted
from .folder import load_folder
from .idx import load_idx
from .npy import load_npy
from .npz import load_npz

# What is in a folder → what reads it, and what it is.
_FOLDERS = {
    "train-images?idx3-ubyte*": (load_idx, "IDX files, as of MNIST"),
    "data_batch_*.bin": (load_cifar10, "CIFAR-10's binary version"),
    "x_train*.npy": (load_npy, "NumPy's arrays"),
    "train": (load_folder, "with 'test', images by class"),
}


def load(path: str | os.PathLike[str]) -> Dataset:
    """A data set in any format that this package reads, which is told by what is there.

    ======================================================  ==================
    a file                                                  `load_npz`
    a folder with `train-images-idx3-ubyte`, perhaps `.gz`  `load_idx`
    a folder with `data_batch_1.bin`                        `load_cifar10`
    a folder with `x_train.npy` or `x_train-00000.npy`      `load_npy`
    a folder with `train` and `test`                        `load_folder`
    ======================================================  ==================

    Args:
        path: The file or folder.

    Returns:
        The data set.

    Raises:
        DataError: there is none, or one that cannot be used.
        ImportError: they are images by class, and Pillow is not installed.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     try:
        ...         load(folder)
        ...     except DataError as error:
        ...         print(str(error).removeprefix(repr(folder))[:66])
        : no data set that is known; looked for 'train-images?idx3-ubyte*'
    """
    if not os.path.isdir(path):
        return load_npz(path)
    names = names_in(path)
    for pattern, (read, _) in _FOLDERS.items():
        if matching(names, pattern):
            return read(path)
    known = ", ".join(f"{pattern!r} ({what})" for pattern, (_, what) in _FOLDERS.items())
    raise DataError(f"{quoted(path)}: no data set that is known; looked for {known}")
