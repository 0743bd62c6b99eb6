"""Folders of images by class: other kinds of images, and wrong ones."""

import struct
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from examples.trainer import data
from examples.trainer.tests.data_files import COLOUR, image_files, picture, put, written

GOOD = image_files()
SOME = "train/b/01.png"
SOME_PNG = GOOD[SOME]


def with_a_palette(kind: str) -> bytes:
    return written(lambda file: Image.fromarray(COLOUR.x_train[0]).convert("P").save(file, kind))


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def with_size(content: bytes, width: int, height: int) -> bytes:
    """A PNG whose header announces other sides, with its checksum right."""
    chunk = b"IHDR" + struct.pack(">2I", width, height) + content[24:29]
    return content[:12] + chunk + struct.pack(">I", zlib.crc32(chunk)) + content[33:]


NO_IMAGE = f"/{SOME}' is no image that can be used; PNG, JPEG, BMP are read"
UNLIKE = f"/{SOME}' is {{}}, but '"

# kind → (the files that are changed, what the message must name and say)
WRONG: dict[str, tuple[dict[str, bytes | None], str]] = {
    "no test": ({name: None for name in GOOD if name.startswith("test")}, "/test': No such file or directory"),
    "one class": ({name: None for name in GOOD if "/a/" in name or "/b/" in name}, ": 1 classes in 'train'"),
    "no class to test": ({name: None for name in GOOD if "test" in name} | {"test/.x": b""}, ": no classes in 'test'"),
    "a class in the test only": ({"test/d/1.png": SOME_PNG}, ": 'd' in 'test', but not in 'train'; a class must"),
    "an empty class": ({"train/d/.DS_Store": b""}, "/train/d' is empty; a class has at least one image"),
    "an empty class to test": ({"test/a/00.png": None, "test/a/03.png": None, "test/a/.x": b""}, "/test/a' is empty"),
    "no folder": ({"train/1.png": SOME_PNG}, "/train/1.png' is no folder; here is one for each class"),
    "a folder in a class": ({"train/b/more/1.png": SOME_PNG}, "/train/b/more': Is a directory"),
    "text": ({SOME: b"text"}, NO_IMAGE),
    "empty": ({SOME: b""}, NO_IMAGE),
    "a GIF": ({SOME: with_a_palette("GIF")}, NO_IMAGE),
    "a damaged header": ({SOME: flipped(SOME_PNG, 20)}, NO_IMAGE),
    "cut in the header": ({SOME: SOME_PNG[:25]}, NO_IMAGE),
    "a decompression bomb": ({SOME: with_size(SOME_PNG, 60_000, 60_000)}, NO_IMAGE),
    "what may be one": ({SOME: with_size(SOME_PNG, 10_000, 10_000)}, NO_IMAGE),
    "another size": ({SOME: picture(COLOUR.x_train[0, :, :3])}, UNLIKE.format("RGB of 3 by 5 pixels")),
    "another mode": ({SOME: picture(COLOUR.x_train[0, ..., 0])}, UNLIKE.format("L of 4 by 5 pixels")),
    "a palette": ({name: with_a_palette("PNG") for name in GOOD}, "/00.png' has Pillow's mode P; L, LA"),
    "sixteen bits": ({name: picture(np.zeros((5, 4), np.uint16)) for name in GOOD}, "' has Pillow's mode I;16; L, LA"),
}


def write(folder: Path, changes: dict[str, bytes | None]) -> None:
    put(folder, {name: content for name, content in (GOOD | changes).items() if content is not None})


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_file_gets_one_line(tmp_path: Path, kind: str) -> None:
    changes, message = WRONG[kind]
    write(tmp_path, changes)
    with pytest.raises(data.DataError) as caught:
        data.load_folder(tmp_path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"'{tmp_path}")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "content",
    [flipped(SOME_PNG, SOME_PNG.index(b"IDAT") + 20), SOME_PNG[: SOME_PNG.index(b"IDAT") + 20], SOME_PNG[:-30]],
    ids=["a bit", "cut short", "cut at the end"],
)
def test_damaged_pixels_are_met_when_they_are_read(tmp_path: Path, content: bytes) -> None:
    """And not before: no file's pixels are read but of the images that are asked for."""
    write(tmp_path, {SOME: content})
    images = data.load_folder(tmp_path).x_train
    assert len(images) == 12
    want = [COLOUR.x_train[row] / 255.0 for row in (4, 7, 2)]
    np.testing.assert_allclose(images[np.array([5, 6, 8])], want, rtol=1e-7)
    for rows in (np.array([0, 4]), slice(None)):
        with pytest.raises(data.DataError, match=rf"/{SOME}' is damaged and cannot be read$"):
            images[rows]


def test_every_flipped_bit_of_the_pixels_is_noticed(tmp_path: Path) -> None:
    """In what is compressed as two values are, most flips only make another image."""
    content = picture(np.random.default_rng(0).integers(0, 2, (30, 20), np.uint8))
    put(tmp_path, dict.fromkeys(GOOD, content))
    images = data.load_folder(tmp_path).x_train
    end = content.index(b"IEND") - 8
    for place in range(8 * (end - 40), 8 * end):
        at, bit = divmod(place, 8)
        (tmp_path / SOME).write_bytes(content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :])
        with pytest.raises(data.DataError, match="is damaged"):
            images[4:5]


def test_an_image_that_goes_or_changes_meanwhile(tmp_path: Path) -> None:
    write(tmp_path, {})
    images = data.load_folder(tmp_path).x_train
    (tmp_path / SOME).write_bytes(picture(COLOUR.x_train[0, :, :3]))
    with pytest.raises(data.DataError, match=rf"/{SOME}' has changed since its header was read"):
        images[4:5]
    (tmp_path / SOME).unlink()
    with pytest.raises(data.DataError, match=rf"/{SOME}': No such file or directory"):
        images[4:5]
    assert images[5:6].shape == (1, 5, 4, 3)


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("LA", 2), ("RGB", 3), ("RGBA", 4)])
def test_modes(tmp_path: Path, mode: str, channels: int) -> None:
    x = np.random.default_rng(2).integers(0, 256, (5, 4, channels), np.uint8)
    content = written(lambda file: Image.frombytes(mode, (4, 5), x.tobytes()).save(file, "PNG"))
    put(tmp_path, dict.fromkeys(GOOD, content))
    images = data.load(tmp_path).x_train
    assert images.shape == (12, 5, 4, channels)
    np.testing.assert_allclose(images[11:], x[np.newaxis] / 255.0, rtol=1e-7)


def test_formats_may_be_mixed(tmp_path: Path) -> None:
    """JPEG loses a little of an image without edges."""
    smooth = np.broadcast_to(np.linspace(30, 200, 16).astype(np.uint8)[:, None, None], (16, 16, 3))
    for part in ("train", "test"):
        put(tmp_path, {f"{part}/{name}/1": picture(smooth, name) for name in ("PNG", "BMP", "JPEG")})
    dataset = data.load_folder(tmp_path)
    np.testing.assert_allclose(dataset.x_train[:], np.stack([smooth] * 3) / 255.0, atol=0.02)
    np.testing.assert_array_equal(dataset.x_test[np.array([0, 2])], np.stack([smooth] * 2) / np.float32(255))
    np.testing.assert_array_equal(dataset.y_train, [0, 1, 2])


def test_labels_are_the_places_of_sorted_names_in_training(tmp_path: Path) -> None:
    names = ["train/b/2", "train/b/1", "train/C/1", "train/a/9", "train/a/10", "test/b/1", "test/C/3"]
    put(tmp_path, {name: picture(np.full((2, 3), number, np.uint8)) for number, name in enumerate(names)})
    put(tmp_path, {"train/.hidden/1": b"", "train/a/.DS_Store": b"", ".git/x": b""})
    dataset = data.load_folder(tmp_path)
    np.testing.assert_array_equal(dataset.y_train, [0, 1, 1, 2, 2])
    np.testing.assert_allclose(dataset.x_train[:][:, 0, 0, 0] * 255, [2, 4, 3, 1, 0], atol=1e-4)
    np.testing.assert_array_equal(dataset.y_test, [0, 2])
    np.testing.assert_allclose(dataset.x_test[:][:, 0, 0, 0] * 255, [6, 5], atol=1e-4)
    assert dataset.classes == 3


def test_pillow_does_not_warn(tmp_path: Path) -> None:
    """Of an image of many pixels: it is refused as one of too many is."""
    write(tmp_path, {SOME: with_size(SOME_PNG, 10_000, 10_000)})
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with pytest.raises(data.DataError):
            data.load_folder(tmp_path)
    assert not seen


def test_without_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {})
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"Pillow, which is missing; python -m pip install .*jaxbn\[examples\]"):
        data.load(tmp_path)
