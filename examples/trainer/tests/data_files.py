"""A small data set in every file format, written without the package: by `struct`, `gzip`, NumPy and Pillow."""

import gzip
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from examples.trainer import data


class Arrays(NamedTuple):
    """What the files hold: pixels of uint8, labels."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def arrays(*shape: int, train: int = 12, test: int = 6) -> Arrays:
    """Random images of a shape with labels 0, 1, 2, 0, …"""
    rng = np.random.default_rng(0)
    x_train, x_test = (rng.integers(0, 256, (count, *shape), np.uint8) for count in (train, test))
    return Arrays(x_train, np.arange(train) % 3, x_test, np.arange(test) % 3)


GREY = arrays(5, 4)
COLOUR = arrays(5, 4, 3)
CIFAR = arrays(32, 32, 3, train=10, test=3)  # two images in each file


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def idx_files(end: str = "") -> dict[str, bytes]:
    pack = gzip.compress if end == ".gz" else bytes
    kinds = {
        f"{part}-{kind}-ubyte{end}": pack(idx(array))
        for part, arrays in (("train", GREY[:2]), ("t10k", GREY[2:]))
        for kind, array in zip(("images-idx3", "labels-idx1"), arrays, strict=True)
    }
    return kinds


def cifar_files() -> dict[str, bytes]:
    def records(images: np.ndarray, labels: np.ndarray) -> bytes:
        return b"".join(
            bytes([label]) + b"".join(image[..., plane].tobytes() for plane in range(3))
            for image, label in zip(images, labels, strict=True)
        )

    x_train, y_train, x_test, y_test = CIFAR
    batches = {
        f"data_batch_{number + 1}.bin": records(x_train[2 * number :][:2], y_train[2 * number :][:2])
        for number in range(5)
    }
    return batches | {"test_batch.bin": records(x_test, y_test)}


def npz_files(save: Callable[..., None] = np.savez) -> dict[str, bytes]:
    return {"images.npz": written(lambda file: save(file, **GREY._asdict()))}


def npy_files() -> dict[str, bytes]:
    """The training images in two parts."""
    parts = {"x_train-00000": COLOUR.x_train[:7], "x_train-00001": COLOUR.x_train[7:]}
    parts |= {"y_train": COLOUR.y_train, "x_test": COLOUR.x_test, "y_test": COLOUR.y_test}
    return {f"{name}.npy": npy(array) for name, array in parts.items()}


def npy(array: np.ndarray) -> bytes:
    return written(lambda file: np.save(file, array))


def image_files(kind: str = "PNG") -> dict[str, bytes]:
    """By class: the order within a class is the arrays'."""
    return {
        f"{part}/{'abc'[label]}/{number:02}.{kind.lower()}": picture(image, kind)
        for part, images, labels in (("train", *COLOUR[:2]), ("test", *COLOUR[2:]))
        for number, (image, label) in enumerate(zip(images, labels, strict=True))
    }


def picture(image: np.ndarray, kind: str = "PNG") -> bytes:
    return written(lambda file: Image.fromarray(image).save(file, kind))


def written(write: Callable[[BytesIO], object]) -> bytes:
    file = BytesIO()
    write(file)
    return file.getvalue()


class Format(NamedTuple):
    """A way to store a data set."""

    files: Callable[[], dict[str, bytes]]  # path → content
    load: Callable[[Path], data.Dataset]
    arrays: Arrays
    name: str = ""  # of the file that is loaded, or else the folder

    def write(self, folder: Path) -> Path:
        """What `load` takes."""
        put(folder, self.files())
        return folder / self.name


FORMATS = {
    "npz": Format(npz_files, data.load_npz, GREY, "images.npz"),
    "npz, compressed": Format(lambda: npz_files(np.savez_compressed), data.load_npz, GREY, "images.npz"),
    "IDX": Format(idx_files, data.load_idx, GREY),
    "IDX, compressed": Format(lambda: idx_files(".gz"), data.load_idx, GREY),
    "CIFAR-10": Format(cifar_files, data.load_cifar10, CIFAR),
    "npy": Format(npy_files, data.load_npy, COLOUR),
    "folder": Format(image_files, data.load_folder, COLOUR),
}


@contextmanager
def allocating_at_most(size: int) -> Iterator[None]:
    """Python and NumPy together, at any moment."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] <= size
    finally:
        tracemalloc.stop()


def put(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
