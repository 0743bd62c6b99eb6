"""Wrong `.npz` files, with what is said of each; the tests of `load_npz` and of the training example take them."""

import io
import struct
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np


def arrays(**changes: object) -> dict[str, np.ndarray]:
    """A small data set as Keras would ship it, with some arrays replaced, or left out where None is given."""
    rng = np.random.default_rng(0)
    good = {
        "x_train": rng.integers(0, 256, (12, 5, 4), np.uint8),
        "y_train": (np.arange(12) % 3).astype(np.uint8),
        "x_test": rng.integers(0, 256, (6, 5, 4), np.uint8),
        "y_test": (np.arange(6) % 3).astype(np.uint8),
    }
    return {key: np.asarray(array) for key, array in (good | changes).items() if array is not None}


def npz(**changes: object) -> Callable[[Path], None]:
    return lambda path: np.savez(path, **arrays(**changes))  # pyright: ignore[reportArgumentType]


def contents(write: Callable[[io.BytesIO], object]) -> bytes:
    file = io.BytesIO()
    write(file)
    return file.getvalue()


GOOD = contents(lambda file: np.savez(file, **arrays()))  # pyright: ignore[reportArgumentType]
NPY = contents(lambda file: np.save(file, np.zeros(3)))


def raw(text: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(text)


def zipped(**members: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as file:
            for name, text in members.items():
                file.writestr(name, text)

    return write


def every(array: bytes) -> Callable[[Path], None]:
    """An archive with the same member under each of the four keys."""
    return zipped(**{f"{key}.npy": array for key in arrays()})


def compressed(method: int, **changes: bytes) -> bytes:
    """A good data set whose members are compressed, some of them replaced."""
    members = {key: contents(partial(np.save, arr=array)) for key, array in arrays().items()} | changes

    def write(file: io.BytesIO) -> None:
        with zipfile.ZipFile(file, "w", method) as archive:
            for key, text in members.items():
                archive.writestr(f"{key}.npy", text)

    return contents(write)


def announcing(text: bytes, key: str, *, packed: int | None = None, unpacked: int | None = None) -> bytes:
    """With other sizes of a member in the archive's directory."""
    at = text.rindex(f"{key}.npy".encode()) - 46
    sizes = struct.unpack("<2I", text[at + 20 : at + 28])
    changed = (size if new is None else new for size, new in zip(sizes, (packed, unpacked), strict=True))
    return text[: at + 20] + struct.pack("<2I", *changed) + text[at + 28 :]


def flipped(text: bytes) -> bytes:
    """With one bit changed in the pixels, which only the archive's checksum can tell."""
    at = text.index(b"x_test.npy") + 200
    return text[:at] + bytes([text[at] ^ 1]) + text[at + 1 :]


def bad_pixel(value: float) -> np.ndarray:
    images = np.zeros((12, 5, 4))
    images[3, 2, 1] = value
    return images


HUGE = (
    b"\x93NUMPY\x01\x00v\x00"
    + b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000, 1000000, 100), }".ljust(117)
    + b"\n"
)

X_TRAIN = contents(partial(np.save, arr=arrays()["x_train"]))
BOMB = compressed(zipfile.ZIP_DEFLATED, x_train=X_TRAIN + bytes(30_000_000))

# kind → (what makes the file, what the message must say after the file's name)
WRONG_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "No such file or directory"),
    "a directory": (Path.mkdir, "Is a directory"),
    "random bytes": (raw(np.random.default_rng(0).bytes(2000)), "not a .npz file"),
    "text": (raw(b"x_train,y_train\n1,2\n"), "not a .npz file"),
    "empty": (raw(b""), "not a .npz file"),
    "a plain .npy": (raw(NPY), "not a .npz file"),
    "cut short": (raw(GOOD[:-100]), "not a .npz file, or one cut short"),
    "damaged": (raw(flipped(GOOD)), "`x_test` is damaged"),
    "an array cut short": (
        every(b"\x93NUMPY"),
        "`x_train` does not begin as a .npy array does",
    ),
    "no arrays": (zipped(), "no 'x_train', 'y_train', 'x_test', 'y_test' in it, but no arrays"),
    "not arrays": (zipped(x_train=b"text"), "in it, but no arrays"),
    "a huge header": (
        every(HUGE),
        "`x_train` holds 0 bytes behind its header, which announces an array of shape (1000000000, 1000000, 100)",
    ),
    "bytes behind an array": (
        every(NPY + b"1"),
        "`x_train` holds 25 bytes behind its header",
    ),
    "a bomb": (
        raw(BOMB),
        "`x_train` holds 30000240 bytes behind its header, which announces an array of shape (12, 5,",
    ),
    "a bomb that lies": (raw(announcing(BOMB, "x_train", unpacked=len(X_TRAIN))), "`x_train` is damaged"),
    "more than deflate makes": (
        raw(announcing(BOMB, "x_train", unpacked=2**32 - 2)),
        "`x_train` announces 4294967294 bytes, more than its",
    ),
    "more than the file has": (
        raw(announcing(GOOD, "y_test", packed=2**32 - 2)),
        "`y_test` announces 4294967294 bytes in a file of",
    ),
    "compressed by LZMA": (raw(compressed(zipfile.ZIP_LZMA)), "`x_train` is compressed as NumPy does not"),
    "wrong keys": (
        npz(x_test=None, y_test=None, images=[1]),
        "no 'x_test', 'y_test' in it, but 'x_train', 'y_train', 'images'",
    ),
    "many wrong keys": (
        lambda path: np.savez(path, *range(9)),
        "but 'arr_0', 'arr_1', 'arr_2', 'arr_3', 'arr_4', 'arr_5', …",
    ),
    "pickled images": (npz(x_train=np.array([{}] * 12)), "`x_train` holds pickled objects"),
    "pickled labels": (npz(y_test=np.array([None] * 6)), "`y_test` holds pickled objects"),
    "NaN images": (npz(x_train=bad_pixel(np.nan)), "`x_train` holds 1 NaN or infinite values"),
    "infinite images": (npz(x_train=bad_pixel(-np.inf)), "`x_train` holds 1 NaN or infinite values"),
    "too large for float32": (npz(x_train=bad_pixel(1e300)), "`x_train` holds 1 NaN or infinite values"),
    "no training images": (
        npz(x_train=np.zeros((0, 5, 4)), y_train=np.zeros(0, int)),
        "`x_train` has shape (0, 5, 4): no images",
    ),
    "no test images": (
        npz(x_test=np.zeros((0, 5, 4)), y_test=np.zeros(0, int)),
        "`x_test` has shape (0, 5, 4): no images",
    ),
    "images without pixels": (
        npz(x_train=np.zeros((12, 0, 4))),
        "`x_train` has shape (12, 0, 4): images without pixels",
    ),
    "images without channels": (npz(x_train=np.zeros((12, 5, 4, 0))), "images without pixels"),
    "flat images": (npz(x_train=np.zeros((12, 20))), "`x_train` has shape (12, 20)"),
    "one number": (npz(x_test=np.float32(1)), "`x_test` has shape ()"),
    "text for images": (npz(x_train=np.full((12, 5, 4), "a")), "`x_train` has dtype <U1"),
    "complex images": (npz(x_train=np.zeros((12, 5, 4), complex)), "`x_train` has dtype complex128"),
    "whole numbers of unknown scale": (npz(x_train=np.zeros((12, 5, 4), np.int64)), "`x_train` has dtype int64"),
    "images of two sizes": (npz(x_test=np.zeros((6, 4, 5))), "images of 5×4×1 in `x_train`, but of 4×5×1 in `x_test`"),
    "grey and colour": (npz(x_test=np.zeros((6, 5, 4, 3))), "images of 5×4×1 in `x_train`, but of 5×4×3 in `x_test`"),
    "a label too few": (npz(y_train=np.arange(11) % 3), "12 images in `x_train`, but 11 labels in `y_train`"),
    "no labels": (npz(y_test=np.zeros(0, int)), "6 images in `x_test`, but 0 labels in `y_test`"),
    "one label for all": (npz(y_train=np.int64(1)), "`y_train` has shape ()"),
    "one-hot labels": (npz(y_train=np.eye(3, dtype=int)[np.arange(12) % 3]), "`y_train` has shape (12, 3)"),
    "floating labels": (npz(y_train=np.arange(12) % 3 * 1.0), "`y_train` has dtype float64"),
    "true and false": (npz(y_train=np.arange(12) % 2 == 0), "`y_train` has dtype bool"),
    "a negative label": (npz(y_train=np.arange(12) % 3 - 1), "`y_train` holds labels from -1 to 1"),
    "a label beyond int32": (
        npz(y_train=np.arange(12, dtype=np.uint64) + 2**63),
        "`y_train` holds labels from 9223372036854775808",
    ),
    "more classes than images": (npz(y_train=np.arange(12) + 1), "`y_train` holds the label 12 among only 12 images"),
    "labels out of range": (npz(y_test=np.arange(6) % 4), "`y_test` holds the label 3, `y_train` none above 2"),
    "a single class": (npz(y_train=np.full(12, 2)), "every label in `y_train` is 2"),
}
