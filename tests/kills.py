"""A run that is killed: does it go on as if nothing had been? At every file that a save touches it must.

    python -m tests.kills --output benchmarks/results/kills.json

A tiny network is trained in a process of its own, with a save every few steps, and killed with SIGKILL: at random
moments, and just before each thing that a save does to a file, from its first directory to the removal of an old
checkpoint. It is then started again. That must find the newest save whole, go on from there, lose no more than the steps
since, and end bit for bit where the run ended that nobody killed.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax
import numpy as np
import optax
from tqdm import tqdm

from jaxbn import cnn
from jaxbn.data import Dataset
from jaxbn.training import Checkpoints, create_train_state, fit, load_checkpoint
from tests.compiled import compiled_in

EPOCHS, BATCH, IMAGES, EVERY = 3, 4, 33, 4  # 24 steps, 6 saves
SETTINGS = {"features": [4], "seed": 0}
TOUCHES = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"}
# A process that is forked from one that has imported all this starts in no time.
PROCESSES = multiprocessing.get_context("forkserver")


def train(directory: Path, log: Path, kill_at: int | None) -> None:
    """The run: all of its child process. It writes down where it goes on, and each step."""
    notes = log.open("w", buffering=1)
    touched = itertools.count(1)

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event in TOUCHES and _is_below(directory, event, arguments):
            number = next(touched)
            notes.write(f"touch {event} {arguments[0]}\n")
            if number == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    rng = np.random.default_rng(0)
    images = rng.standard_normal((IMAGES + 5, 4, 4, 1)).astype(np.float32)
    labels = rng.integers(0, 3, IMAGES + 5).astype(np.int32)
    dataset = Dataset(images[:IMAGES], labels[:IMAGES], images[IMAGES:], labels[IMAGES:], 3)
    optimizer = optax.adam(1e-2)
    with compiled_in(log.parent / "compiled"):
        state = create_train_state(jax.random.key(0), cnn.CNNConfig(classes=3, in_channels=1, features=(4,)), optimizer)
        sys.addaudithook(watch)
        with Checkpoints(directory, SETTINGS) as checkpoints:
            state, history = checkpoints.restore(state)
            notes.write(f"from {int(state.step)} {checkpoints.resumed} {checkpoints.damaged}\n")
            for state, progress in fit(state, dataset, optimizer, epochs=EPOCHS, batch_size=BATCH):
                notes.write(f"step {int(state.step)}\n")
                accuracy = None
                if progress.test is not None:
                    accuracy = float(progress.test.accuracy)
                    history.append({"loss": float(progress.train.loss), "test": accuracy})
                if int(state.step) % EVERY == 0:
                    checkpoints.save(state, history, accuracy=accuracy)
    notes.write("end\n")


def _is_below(directory: Path, event: str, arguments: tuple[Any, ...]) -> bool:
    path, written = arguments[0], event != "open" or arguments[2] & (os.O_WRONLY | os.O_RDWR)
    # A tree is removed by names that are relative to a directory that is open.
    return written and isinstance(path, str) and (path.startswith(str(directory)) or not os.path.isabs(path))
