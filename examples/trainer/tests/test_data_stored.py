"""Images that are read when they are asked for, and no others with them."""

import numpy as np
import pytest

from examples.trainer import data
from examples.trainer.data.stored import Shard, Shards


class Recorder(np.ndarray):
    """An array that notes which rows are taken of it."""

    taken: list[list[int]]

    def __getitem__(self, rows):
        self.taken.append(np.asarray(rows).tolist())
        return np.asarray(self)[rows]


def recorder(count: int, dtype: type = np.uint8) -> Recorder:
    array = np.arange(count * 12).reshape(count, 2, 3, 2).astype(dtype).view(Recorder)
    array.taken = []
    return array


def test_only_the_rows_that_are_asked_for_are_read() -> None:
    parts = [recorder(4), recorder(1), recorder(7), recorder(2)]
    images = Shards([Shard(str(number), part) for number, part in enumerate(parts)])
    whole = np.concatenate([np.asarray(part) for part in parts]) / 255.0
    assert images.shape == (14, 2, 3, 2)
    assert [part.taken for part in parts] == [[], [], [], []]
    rows = np.array([[11, 0], [5, 3], [11, 1]])
    np.testing.assert_allclose(images[rows], whole[rows], rtol=1e-7)
    assert [part.taken for part in parts] == [[[0, 3, 1]], [], [[6, 0, 6]], []]
    np.testing.assert_allclose(images[3:6], whole[3:6], rtol=1e-7)
    assert [part.taken[-1:] for part in parts] == [[[3]], [[0]], [[0]], []]


@pytest.mark.parametrize("value", [0, 1, 128, 255])
def test_bytes_are_scaled_to_one(value: int) -> None:
    images = Shards([Shard("", np.full((2, 3, 4, 1), value, np.uint8))])
    assert images[:].dtype == np.float32
    np.testing.assert_array_equal(images[:], np.float32(value) / np.float32(255))


def test_more_than_memory_at_once() -> None:
    images = Shards([Shard("", np.broadcast_to(np.uint8(1), (2**20, 2**15, 2**15, 1)))])
    with pytest.raises(data.DataError, match="1048576 images at once are larger than the memory that is left"):
        images[:]


def test_an_array_of_rows_may_be_of_many() -> None:
    """A slice of very many images makes no list of all of them."""
    images = Shards([Shard("", np.broadcast_to(np.uint8(3), (10**15, 2, 2, 1)))])
    np.testing.assert_array_equal(images[10**15 - 2 :], np.full((2, 2, 2, 1), 3 / 255, np.float32))
