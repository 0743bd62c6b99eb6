"""The trace of a few steps, as JAX's own reader opens it."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from examples.trainer.training import trace_steps


def steps_of(count: int) -> Iterator[int]:
    step = jax.jit(lambda x: x @ x)
    for number in range(1, count + 1):
        step(jnp.ones((8, 8), jnp.float32)).block_until_ready()
        yield number


def traced(directory: Path) -> list[int]:
    """The numbers of the steps in the one trace; JAX's reader finds as many as its neighbour, the JSON file."""
    (trace,) = directory.rglob("*.xplane.pb")
    planes = jax.profiler.ProfileData.from_file(str(trace)).planes
    named = [event for plane in planes for line in plane.lines for event in line.events if event.name == "train_step"]
    assert all(event.duration_ns > 0 for event in named)
    (readable,) = directory.rglob("*.trace.json.gz")
    events = json.loads(gzip.decompress(readable.read_bytes()))["traceEvents"]
    numbers = [int(event["args"]["step_num"]) for event in events if event.get("name") == "train_step"]
    assert len(numbers) == len(named)
    return sorted(numbers)


@pytest.mark.parametrize(
    ("steps", "first", "last"), [(1, 1, 1), (2, 1, 2), (7, 3, 7), (19, 9, 19), (20, 10, 20), (50, 10, 20)]
)
def test_the_steps_are_in_the_trace(tmp_path: Path, steps: int, first: int, last: int) -> None:
    directory = tmp_path / "made" / "here"
    assert list(trace_steps(steps_of(steps), directory, steps=steps)) == list(range(1, steps + 1))
    assert traced(directory) == list(range(first, last + 1))


def test_a_run_that_ends_amid_its_trace_leaves_it(tmp_path: Path) -> None:
    def failing() -> Iterator[int]:
        yield from steps_of(12)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(trace_steps(failing(), tmp_path, steps=50))
    assert traced(tmp_path) == list(range(10, 14))


def test_a_run_that_is_left_amid_its_trace_leaves_it(tmp_path: Path) -> None:
    run = trace_steps(steps_of(50), tmp_path, steps=50)
    for number in run:
        if number == 12:
            break
    run.close()
    assert traced(tmp_path) == [10, 11, 12]


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(FileExistsError):
        list(trace_steps(iter("ab"), tmp_path / "taken", steps=2))


def test_where_nothing_can_be_written_no_step_is_taken() -> None:
    """Root may write to any directory but the system's own."""
    with pytest.raises(OSError, match="/proc/self"):
        next(trace_steps((pytest.fail("a step was taken") for _ in "ab"), "/proc/self", steps=2))
