"""What each of two processes does for `test_processes.py`, which starts them.

python -m examples.trainer.tests.one_of_two OUTPUT PORT PROCESS_ID TASK ARRIVAL SILENCE
"""

import functools
import json
import sys
import time
from pathlib import Path
from typing import Any

import jax

import tests.conftest  # noqa: F401 - it sets up JAX
from examples.trainer import training
from examples.trainer.tests.small_run import STEPS, new_state, plain, run
from examples.trainer.training import loop, processes


def main(output: Path, port: str, process_id: int, task: str, arrival: float, silence: float) -> None:
    jax.config.update("jax_disable_most_optimizations", True)
    processes.ARRIVAL, processes.SILENCE = arrival, silence
    training.make_cpu_devices(2)
    with training.join_processes(f"127.0.0.1:{port}", process_id, 2, tell=tell):
        if task == "train":
            train(output, process_id)
        wait()


def tell(what: str) -> None:
    sys.stderr.write(f"train: {what}\n")  # in one piece, because JAX's threads write lines there at the same time


def train(output: Path, process_id: int) -> None:
    """Trains in several ways, and leaves what came of it in a file."""
    results: dict[str, Any] = {"stopped": stopped(), "refused": [refused(count) for count in (3, 6)]}
    mesh = training.data_mesh(4)
    loop.make_train_step = functools.cache(training.make_train_step)

    def train(name: str, state: training.TrainState, steps: int = STEPS, **options: Any) -> training.TrainState:
        got = run(training.spread(state, mesh), steps, **options)
        learnt = [leaf.tobytes().hex() for leaf in jax.tree.leaves(plain(got.state))]
        results[name] = {"train": got.train.tolist(), "test": got.test.tolist(), "learnt": learnt}
        return got.state

    train("global", new_state())
    train("ensemble with local batch norm", new_state(2), local_batch_norm=True)
    half = train("first half", new_state(), STEPS // 2)
    with training.Checkpoints(output / "checkpoints", {}) as checkpoints:
        checkpoints.save(half, [])
    with training.Checkpoints(output / "checkpoints", {}) as checkpoints:
        restored, _ = checkpoints.restore(training.spread(new_state(), mesh))
    train("second half", restored, STEPS // 2)
    (output / f"{process_id}.json").write_text(json.dumps(results))


def stopped() -> tuple[int, int | None, int]:
    """At which step, by which signal of this process's own, and by which as all know."""
    with training.Interruption() as interruption:
        for step in range(10_000):
            if signal := training.agree(interruption.signal or 0):
                return step, interruption.signal, signal
            if step == 3:  # which is agreed upon: what comes now is of a later step
                print("send me a signal", flush=True)
            time.sleep(0.01)
    raise AssertionError("no signal came")


def refused(devices: int) -> str:
    try:
        training.data_mesh(devices)
    except ValueError as error:
        return str(error)
    raise AssertionError(devices)


def wait() -> None:
    """For the other, at step after step."""
    for step in range(10_000):
        if step == 3:
            print("kill me", flush=True)
        training.agree(0)
        time.sleep(0.01)


if __name__ == "__main__":
    output, port, process_id, task, arrival, silence = sys.argv[1:]
    main(Path(output), port, int(process_id), task, int(arrival), int(silence))
