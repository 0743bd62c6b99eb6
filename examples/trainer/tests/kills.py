"""A training run that is killed: does it go on as if nothing had been? Whenever it is killed it must.

    python -m examples.trainer.tests.kills --output examples/trainer/results/kills.json

`examples/trainer` trains a tiny network in a process of its own, with a save every few steps, and dies of
SIGKILL: at random moments, and just before each thing that it does to a file below its checkpoints, from the first
directory of a save to the last one of an old save that is removed. The same command is then given again. It must go on
from the newest save, and leave what a run leaves that nobody kills: the state bit for bit, the same history, the same
metrics, the same saves, and at most one that was to be removed when the last had been written. The command can be
stopped: it goes on from the kills that it has written.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import re
import signal
import sys
import time
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from examples.trainer import train
from examples.trainer.training import load_checkpoint
from tests.support.compiled import compiled_in

OPTIONS = ["--epochs", "3", "--batch-size", "4", "--save-every", "4", "--features", "4"]
BETWEEN = 4  # so many steps, at most, from a save to the next: of 18 steps 4, 6, 8, 12, 16 and 18 are saved
TOUCHES = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir")
# What is forked from a process that has imported everything starts in no time.
PROCESSES = multiprocessing.get_context("forkserver")


class Kill(NamedTuple):
    """When a run is killed."""

    touch: int | None = None  # before it touches a file for so manieth a time
    share: float | None = None  # or behind its first step, after such a share of the time that the others take


class Left(NamedTuple):
    """What a run has left."""

    state: dict[str, tuple[str, tuple[int, ...], bytes]]
    history: list[dict[str, Any]]
    metrics: bytes


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=20, help="how many random moments (default: %(default)s)")
    parser.add_argument("--every", type=int, default=1, help="only every so manieth touch of a file (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so many, to go on later")
    parser.add_argument("--output", type=Path, help="where to write, as JSON, and to go on from")
    given = parser.parse_args(arguments)
    with TemporaryDirectory() as folder:
        found = kill_all(Path(folder), **vars(given))
    wrong = [kill for kill in found["kills"] if kill["wrong"]]
    lost = max(kill["steps lost"] for kill in found["kills"])
    killed = sum(kill["killed"] for kill in found["kills"])
    print(f"{killed} of {len(found['kills'])} runs killed, {len(wrong)} wrong, at most {lost} steps lost")
    return 1 if wrong else 0


def kill_all(
    folder: Path, *, count: int, every: int, seed: int, seconds: float = float("inf"), output: Path | None = None
) -> dict[str, Any]:
    """Goes on from what is found already."""
    found: dict[str, Any] = {"jax": jax.__version__, "orbax-checkpoint": version("orbax-checkpoint"), "seed": seed}
    found |= {"every": every, "kills": []}
    if output and output.exists():
        found = json.loads(output.read_text(encoding="utf-8"))
    started, runs = time.monotonic(), Runs(folder)
    kills = [Kill(touch=touch) for touch in range(every, runs.touches + 1, every)]
    kills += [Kill(share=float(share)) for share in np.random.default_rng(seed).random(count)]
    left = kills[len(found["kills"]) :]
    shown = "{desc} |{bar:20}| {n_fmt}/{total_fmt} {elapsed}"
    for kill in tqdm(left, total=len(kills), initial=len(kills) - len(left), desc="killed runs", bar_format=shown):
        if time.monotonic() - started > seconds:
            break
        found["kills"].append(runs.kill(kill))
        if output:
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return found


class Runs:
    """Runs of one command, each in a folder of its own, and what it leaves when nobody kills it."""

    def __init__(self, folder: Path):
        self.folder, self.numbers = folder, itertools.count()
        rng = np.random.default_rng(0)
        images, labels = rng.integers(0, 256, (30, 5, 4), np.uint8), rng.integers(0, 3, 30)
        parts = {"x_train": images[:24], "y_train": labels[:24], "x_test": images[24:], "y_test": labels[24:]}
        np.savez(folder / "images.npz", allow_pickle=False, **parts)
        modules = [__name__, "grain", "examples.trainer.training.orbax_files", "matplotlib.figure"]
        PROCESSES.set_forkserver_preload(modules)
        first, second = self.new(), self.new()
        self.start(first).join()  # and compile
        process = self.start(second)
        began = wait_for_a_step(second, process)
        process.join()
        if process.exitcode:
            raise RuntimeError((second / "said").read_text(encoding="utf-8"))
        self.seconds = (second / "checkpoints").stat().st_mtime - began
        self.unharmed, self.touches = left_by(second), len(lines_of(second / "touches"))
        self.saves = {path.name for path in (second / "checkpoints").iterdir()}
        if left_by(first) != self.unharmed:
            raise RuntimeError("two runs of the same command have left something different")

    def new(self) -> Path:
        run = self.folder / str(next(self.numbers))
        run.mkdir()
        return run

    def start(self, run: Path, touch: int | None = None) -> Any:
        process = PROCESSES.Process(target=program, args=(run, touch))
        process.start()
        return process

    def kill(self, kill: Kill) -> dict[str, Any]:
        """Kill a run, give its command again, and see what it leaves."""
        run = self.new()
        process = self.start(run, kill.touch)
        if kill.share is not None:
            wait_for_a_step(run, process)
            time.sleep(kill.share * self.seconds)
            process.kill()
        process.join()
        killed = process.exitcode == -signal.SIGKILL
        last, touched = len(lines_of(run / "output" / "metrics.jsonl")), lines_of(run / "touches")[-1]
        written = sorted((run / "checkpoints").glob("save_*[0-9]"), key=lambda path: int(path.name[5:]))
        saved = load_checkpoint(written[-1]).step if written else 0
        again = self.start(run)
        again.join()
        left, saves = left_by(run), {path.name for path in (run / "checkpoints").iterdir()}
        said = (run / "said").read_text(encoding="utf-8")
        resumed = int((re.findall(r"^going on from .*, after step (\d+)$", said, re.M) or ["0"])[0])
        checks = {
            f"the second run's status is {again.exitcode}": again.exitcode == 0,
            f"it went on from step {resumed}, and step {saved} was saved": resumed == saved,
            "more was lost than is between two saves and while one is written": last - saved <= 2 * BETWEEN,
            "a checkpoint was found damaged": "damaged" not in said,
            "what it left is not what a run leaves that nobody kills": left == self.unharmed,
            f"these are there: {saves}": self.saves <= saves and len(saves) <= len(self.saves) + 1,
            "a save is there by half": all(re.fullmatch(r"save_\d+", name) for name in saves),
        }
        return {
            "when": plain(touched) if kill.share is None else f"{kill.share:.3f} of the time",
            "killed": killed,
            "after step": last,
            "steps lost": last - resumed,
            "wrong": [check for check, passed in checks.items() if not passed],
        }


def program(run: Path, kill_at: int | None) -> None:
    """All of a child process: the trainer, which writes down what it touches, and may die of it."""
    directory, numbers = str(run / "checkpoints"), itertools.count(1)
    touches = os.open(run / "touches", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in TOUCHES or (event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        # A tree is removed by names that are relative to a directory that is open.
        path = str(arguments[0])
        if path.startswith(directory) or not os.path.isabs(path):
            number = next(numbers)
            os.write(touches, f"{event} {path.removeprefix(directory)}\n".encode())
            if number == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    for stream in (1, 2):
        os.dup2(os.open(run / "said", os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    sys.addaudithook(watch)
    folders = ["--checkpoint", directory, "--output", str(run / "output"), "--data", str(run.parent / "images.npz")]
    with compiled_in(run.parent / "compiled"):
        train.main([*OPTIONS, *folders])


def wait_for_a_step(run: Path, process: Any) -> float:
    """The time at which it has trained a step."""
    while process.is_alive() and not lines_of(run / "output" / "metrics.jsonl"):
        time.sleep(0.001)
    return time.time()


def left_by(run: Path) -> Left:
    checkpoint = load_checkpoint(run / "checkpoints")
    state = {name: (array.dtype.name, array.shape, array.tobytes()) for name, array in checkpoint.arrays.items()}
    return Left(state, checkpoint.history, (run / "output" / "metrics.jsonl").read_bytes())


def lines_of(path: Path) -> list[str]:
    """The whole lines of a file that may not be there, or end in the middle of one."""
    return path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []


def plain(touch: str) -> str:
    """A touch without what is another name in each run."""
    return re.sub(r"(?<=save_)\d+|\b[0-9a-f]{32}\b", "…", touch)


if __name__ == "__main__":
    sys.exit(main())
