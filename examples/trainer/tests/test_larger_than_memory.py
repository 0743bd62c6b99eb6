"""Training on more images than any memory holds: a file of 64 GiB, nearly all of which is a hole on the disk."""

import resource
from itertools import islice
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from examples.trainer import data, training
from jaxbn import cnn

COUNT, SIDE = 1 << 20, 256
GIBIBYTE = 1 << 30


@pytest.fixture
def dataset(tmp_path: Path) -> data.Dataset:
    small = np.zeros((4, SIDE, SIDE), np.uint8)
    np.save(tmp_path / "x_test.npy", small)
    np.save(tmp_path / "y_test.npy", np.arange(4) % 2)
    np.save(tmp_path / "y_train.npy", np.arange(COUNT, dtype=np.uint8) % 2)
    with (tmp_path / "x_train.npy").open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (COUNT, SIDE, SIDE)}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + COUNT * SIDE * SIDE)
    return data.load(tmp_path)


@pytest.mark.usefixtures("quickly_compiled")
def test_only_the_batches_that_are_read_take_memory(dataset: data.Dataset) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    optimizer = optax.sgd(0.1)
    config = cnn.CNNConfig(classes=2, features=(2, 2))
    state = training.create_train_state(jax.random.key(0), config, optimizer)
    run = training.fit(state, dataset, optimizer, epochs=1, batch_size=4)
    *_, (state, progress) = islice(run, 3)
    assert progress.batches == COUNT // 4
    assert int(state.step) == 3
    assert len(dataset.x_train) * SIDE**2 == 64 * GIBIBYTE
    assert len(data.fingerprint(dataset)) == 16
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before < GIBIBYTE / 2
