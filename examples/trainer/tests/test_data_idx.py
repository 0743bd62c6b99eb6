"""Wrong IDX files: plain, compressed, and compressed to fill the memory."""

import gzip
import os
import struct
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from examples.trainer import data
from examples.trainer.data import files
from examples.trainer.tests.data_files import GREY, allocating_at_most, idx, idx_files, put

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
GOOD_IMAGES, GOOD_LABELS = idx(GREY.x_train), idx(GREY.y_train)
BOMB = gzip.compress(struct.pack(">4I", 0x803, 12, 5, 4) + bytes(30_000_000))


def header(magic: int, *sides: int) -> bytes:
    return struct.pack(f">{1 + len(sides)}I", magic, *sides)


# kind → (the files that are changed, what the message must name and say)
WRONG: dict[str, tuple[dict[str, bytes | None], str]] = {
    "no images": ({IMAGES: None}, f": no '{IMAGES}' in it, and no '{IMAGES}.gz'"),
    "no labels": ({LABELS: None}, f": no '{LABELS}' in it"),
    "empty": ({IMAGES: b""}, f"/{IMAGES}' begins with ''; such an IDX file begins with '00000803'"),
    "labels for images": ({IMAGES: GOOD_LABELS}, f"/{IMAGES}' begins with '00000801'; such"),
    "images for labels": ({LABELS: GOOD_IMAGES}, f"/{LABELS}' begins with '00000803'; such"),
    "floats": ({IMAGES: header(0xD03, 12, 5, 4) + bytes(960)}, f"/{IMAGES}' begins with '00000d03'"),
    "gzip without its ending": ({IMAGES: gzip.compress(GOOD_IMAGES)}, f"/{IMAGES}' begins with '1f8b08"),
    "cut in the header": ({IMAGES: GOOD_IMAGES[:11]}, f"/{IMAGES}' ends within its header"),
    "cut short": ({IMAGES: GOOD_IMAGES[:-1]}, f"/{IMAGES}' has 255 bytes; its header announces 16 and 12×5×4 behind"),
    "trailing bytes": ({LABELS: GOOD_LABELS + b"0"}, f"/{LABELS}' has 21 bytes; its header announces 8 and 12 behind"),
    "huge": ({IMAGES: header(0x803, *[2**32 - 1] * 3)}, f"/{IMAGES}' has 16 bytes; its header announces"),
    "no pixels": ({IMAGES: header(0x803, 12, 0, 4)}, f"/{IMAGES}' announces 12×0×4 bytes; at least one is wanted"),
    "huge and empty": ({IMAGES: header(0x803, *[2**32 - 1] * 2, 0)}, "×0 bytes; at least one is wanted"),
    "no label": ({LABELS: header(0x801, 0)}, f"/{LABELS}' announces 0 bytes; at least one is wanted"),
    "a label too few": (
        {LABELS: idx(GREY.y_train[1:])},
        f": 12 images in '{IMAGES}', but 11 labels in '{LABELS}'; each image has one label",
    ),
    "a label too large": ({LABELS: idx(GREY.y_train + 10)}, f": '{LABELS}' holds the label 12 among only 12 images"),
    "a label in the test only": ({LABELS: idx(GREY.y_train % 2)}, "holds the label 2, "),
    "one class": ({LABELS: idx(GREY.y_train * 0)}, f": every label in '{LABELS}' is 0"),
    "two sizes": (
        {"t10k-images-idx3-ubyte": idx(GREY.x_test[:, :4])},
        f": images of 5×4×1 in '{IMAGES}', but of 4×4×1 in 't10k-images-idx3-ubyte'",
    ),
}

WRONG_COMPRESSED = {
    "not gzip": (GOOD_IMAGES, "is damaged and cannot be read"),
    "empty": (b"", "begins with ''; such an IDX file begins with '00000803'"),
    "cut short": (gzip.compress(GOOD_IMAGES)[:-100], "is damaged and cannot be read"),
    "without its checksum": (gzip.compress(GOOD_IMAGES)[:-8], "is damaged and cannot be read"),
    "a wrong checksum": (gzip.compress(GOOD_IMAGES)[:-8] + bytes(8), "is damaged and cannot be read"),
    "another gzip behind": (gzip.compress(GOOD_IMAGES) + gzip.compress(b"1"), "goes on behind the 240 bytes"),
    "text behind": (gzip.compress(GOOD_IMAGES) + b"1", "is damaged and cannot be read"),
    "an image too few": (gzip.compress(GOOD_IMAGES[:-20]), "ends 20 bytes before what its header announces"),
    "labels": (gzip.compress(GOOD_LABELS), "begins with '00000801'"),
    "no pixels": (gzip.compress(header(0x803, 2**32 - 1, 2**32 - 1, 0)), "at least one is wanted"),
    "a bomb": (BOMB, "goes on behind the 240 bytes that its header announces"),
    "more than gzip can": (
        gzip.compress(header(0x803, 600, 1000, 1000) + bytes(10**6)),
        "announces 600000000 bytes, more than its",
    ),
    "more than there is": (
        gzip.compress(header(0x803, 2**32 - 1, 2**32 - 1, 2**32 - 1)),
        "is larger than this machine's memory",
    ),
}


def one_line(folder: Path) -> str:
    with pytest.raises(data.DataError) as caught:
        data.load_idx(folder)
    assert str(caught.value).startswith(f"'{folder}")
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_file_gets_one_line(tmp_path: Path, kind: str) -> None:
    changes, message = WRONG[kind]
    put(tmp_path, {name: content for name, content in (idx_files() | changes).items() if content is not None})
    assert message in one_line(tmp_path)


@pytest.mark.parametrize("kind", WRONG_COMPRESSED)
def test_a_wrong_compressed_file_gets_one_line_and_little_memory(tmp_path: Path, kind: str) -> None:
    content, message = WRONG_COMPRESSED[kind]
    put(tmp_path, idx_files(".gz") | {f"{IMAGES}.gz": content})
    with allocating_at_most(2_000_000):
        said = one_line(tmp_path)
    assert f"/{IMAGES}.gz' " in said
    assert message in said


def test_memory_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*shape_and_type: object) -> np.ndarray:
        raise MemoryError

    put(tmp_path, idx_files(".gz"))
    monkeypatch.setattr(files, "np", SimpleNamespace(empty=refuse, uint8=np.uint8))
    assert f"/{IMAGES}.gz' is larger than the memory that is left" in one_line(tmp_path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    put(tmp_path, idx_files())
    (tmp_path / IMAGES).unlink()
    os.mkfifo(tmp_path / IMAGES)
    assert f"/{IMAGES}' is a device or a pipe; a file is wanted" in one_line(tmp_path)


def test_the_other_spelling(tmp_path: Path) -> None:
    put(tmp_path, {name.replace("-idx", ".idx"): content for name, content in idx_files().items()})
    np.testing.assert_allclose(data.load(tmp_path).x_train[:][..., 0], GREY.x_train / 255.0, rtol=1e-7)


def test_a_file_larger_than_memory(tmp_path: Path) -> None:
    """Sixteen gigabytes that are nearly all a hole, of which some images are read."""
    image = np.resize(np.arange(1, 200, dtype=np.uint8), (320, 320))
    labels = idx(np.arange(160_000) % 3)
    put(tmp_path, idx_files() | {LABELS: labels, "t10k-images-idx3-ubyte": idx(np.zeros((6, 320, 320)))})
    with open(tmp_path / IMAGES, "wb") as file:
        file.write(header(0x803, 160_000, 320, 320))
        for row in (0, 77_777, 159_999):
            file.seek(16 + row * image.size)
            file.write(image.tobytes())
    with allocating_at_most(30_000_000):
        dataset = data.load_idx(tmp_path)
        images = dataset.x_train[np.array([0, 159_999, 77_777, 5])]
        data.fingerprint(dataset)
    np.testing.assert_allclose(images[..., 0], np.stack([image, image, image, 0 * image]) / 255.0, rtol=1e-7)


def test_labels_are_not_read_before_there_are_known_to_be_as_many_as_images(tmp_path: Path) -> None:
    put(tmp_path, idx_files() | {LABELS: header(0x801, 10**7)})
    os.truncate(tmp_path / LABELS, 8 + 10**7)  # a hole, which takes no room on the disk
    message = f": 12 images in '{IMAGES}', but 10000000 labels in"
    with allocating_at_most(1_000_000), pytest.raises(data.DataError, match=message):
        data.load_idx(tmp_path)
