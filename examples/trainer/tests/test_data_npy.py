"""Folders of `.npy` files, wrong ones and such as are larger than memory."""

from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from examples.trainer import data
from examples.trainer.tests.data_files import COLOUR, allocating_at_most, npy, npy_files, put

X0, X1 = "x_train-00000.npy", "x_train-00001.npy"


def header(text: str, version: bytes = b"\x01\x00") -> bytes:
    """With room for the array behind it, as NumPy pads it."""
    size = len(text).to_bytes(2 if version == b"\x01\x00" else 4, "little")
    return b"\x93NUMPY" + version + size + text.encode()


def described(descr: str = "'|u1'", shape: str = "(7, 5, 4, 3)") -> bytes:
    return header(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}") + bytes(420)


# kind → (the files that are changed, what the message must name and say)
WRONG: dict[str, tuple[dict[str, bytes | None], str]] = {
    "no test images": ({"x_test.npy": None}, ": no 'x_test.npy' in it, and no 'x_test-00000.npy'"),
    "a part missing": ({X0: None}, ": 1 files 'x_train-….npy', not numbered 0 to 0"),
    "a part twice": ({"x_train-1.npy": npy(COLOUR.x_train)}, ": 3 files 'x_train-….npy', not numbered 0 to 2"),
    "parts and the whole": ({"x_train.npy": b""}, f": both 'x_train.npy' and '{X0}' in it; one of the two"),
    "parts of two sizes": (
        {X1: npy(COLOUR.x_train[7:, :, :3])},
        f"/{X1}' holds images of uint8[5, 3, 3], but '",
    ),
    "parts of two types": ({X1: npy(COLOUR.x_train[7:] / 255)}, f"/{X1}' holds images of float64[5, 4, 3], but '"),
    "an empty part": ({X1: npy(COLOUR.x_train[:0])}, f"/{X1}' has shape (0, 5, 4, 3): no images"),
    "an empty file": ({X0: b""}, f"/{X0}' does not begin as a .npy array does"),
    "text": ({X0: b"1, 2, 3\n" * 99}, f"/{X0}' does not begin as a .npy array does"),
    "a version of the future": ({X0: header("{}", b"\x04\x00")}, f"/{X0}' does not begin as a .npy array does"),
    "a header that never ends": ({X0: b"\x93NUMPY\x02\x00" + b"\xff" * 99}, f"/{X0}' does not begin as"),
    "not a header": ({X0: header("(" * 5000)}, f"/{X0}' does not begin as a .npy array does"),
    "a header with a warning": ({X0: described("'\\|u1'")}, f"/{X0}' does not begin as a .npy array does"),
    "a number of many digits": ({X0: described(shape=f"({'9' * 5000},)")}, f"/{X0}' does not begin as"),
    "cut short": ({X0: npy(COLOUR.x_train[:7])[:-1]}, f"/{X0}' holds 419 bytes behind its header, which announces"),
    "trailing bytes": ({X0: npy(COLOUR.x_train[:7]) + b"0"}, f"/{X0}' holds 421 bytes behind its header"),
    "huge": ({X0: described(shape=f"({'9' * 30}, 5, 4)")}, f"/{X0}' holds 420 bytes"),
    "negative": ({X0: described(shape="(-7, -5, 4, 3)")}, f"/{X0}' holds 420 bytes behind its header"),
    "huge and empty": ({X0: described(shape=f"(0, {'9' * 40}, 4)")[:-420]}, ", 4): no images"),
    "objects": ({X0: npy(np.array([{}] * 7))}, f"/{X0}' holds pickled objects, which are never read"),
    "records": ({X0: described("[('a', '|u1')]")}, f"/{X0}' has dtype [('a', 'u1')]; images are uint8"),
    "whole numbers": ({X0: described("'|i1'")}, f"/{X0}' has dtype int8; images are uint8 (0 to 255) or floating"),
    "floating labels": ({"y_train.npy": npy(COLOUR.y_train * 1.0)}, "/y_train.npy' has dtype float64; labels are"),
    "negative labels": ({"y_train.npy": npy(COLOUR.y_train - 1)}, "/y_train.npy' holds labels from -1 to 1"),
    "a label too few": ({"y_train.npy": npy(COLOUR.y_train[1:])}, ": 12 images in `x_train`, but 11 labels in"),
    "no labels": ({"y_test.npy": npy(COLOUR.y_test[:0])}, ": 6 images in `x_test`, but 0 labels in `y_test`"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_file_gets_one_line_and_little_memory(tmp_path: Path, kind: str) -> None:
    changes, message = WRONG[kind]
    put(tmp_path, {name: content for name, content in (npy_files() | changes).items() if content is not None})
    # Python's parser takes three million to say what is wrong in a header of five thousand.
    with allocating_at_most(4_000_000), pytest.raises(data.DataError) as caught:
        data.load_npy(tmp_path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"'{tmp_path}")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("dtype", ["<f2", ">f4", "<f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_floating_images_are_taken_as_they_are(tmp_path: Path, dtype: str, order: Literal["C", "F"]) -> None:
    x = np.asarray(np.random.default_rng(1).normal(0, 300, (12, 5, 4, 3)), dtype, order=order)
    put(
        tmp_path,
        npy_files() | {X0: npy(x[:5]), X1: npy(x[5:]), "x_test.npy": npy(x), "y_test.npy": npy(COLOUR.y_train)},
    )
    dataset = data.load_npy(tmp_path)
    for images in (dataset.x_train, dataset.x_test):
        np.testing.assert_array_equal(images[:], x.astype(np.float32))
        assert images[:].dtype == np.float32


def test_a_header_of_python_2_is_read_without_a_warning(tmp_path: Path) -> None:
    put(tmp_path, npy_files() | {X0: described(shape="(7L, 5L, 4L, 3L)")})
    images = data.load_npy(tmp_path).x_train
    assert not images[:7].any()
    np.testing.assert_allclose(images[7:], COLOUR.x_train[7:] / 255.0, rtol=1e-7)


@pytest.mark.parametrize("value", [np.nan, -np.inf, 1e300])
def test_a_pixel_that_is_no_number_is_met_when_it_is_read(tmp_path: Path, value: float) -> None:
    x = np.zeros((12, 5, 4))
    x[9, 2, 1] = value
    put(tmp_path, npy_files() | {X0: npy(x[:7]), X1: npy(x[7:]), "x_test.npy": npy(x[:6])})
    images = data.load_npy(tmp_path).x_train
    assert not images[:9].any()
    with pytest.raises(data.DataError, match=rf"{X1}' holds 1 NaN or infinite values"):
        images[np.array([0, 9])]
