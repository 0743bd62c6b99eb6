"""Checkpoints on disks that fail, damaged ones, and runs that are killed."""

import os
import re
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest

from examples.trainer.tests import corruptions, kills
from examples.trainer.tests.disks import filled, mount_memory, no_file_above, read_only, unwritable
from examples.trainer.tests.states import a_state, bits
from examples.trainer.training import CheckpointError, Checkpoints, TrainState, load_checkpoint

SETTINGS = {"features": [4]}


def assert_a_fault_is_told_and_harmless(directory: Path, fault: AbstractContextManager[None], reason: str) -> None:
    """A save fails, in one line; the state, the checkpoint before and the saves after are as they would have been."""
    before, state = (a_state(seed)._replace(params={"kernel": jnp.arange(2.0**16)}) for seed in range(2))
    intact = bits(state)
    with Checkpoints(directory, SETTINGS) as checkpoints:

        def save(state: TrainState, accuracy: float) -> None:
            checkpoints.save(state, [], accuracy=accuracy)
            checkpoints.wait()

        save(before, 0.5)
        with fault:
            for number in range(1, 4):
                with pytest.raises(CheckpointError) as raised:
                    save(state, 0.75)
                assert str(raised.value) == f"{directory / f'save_{number}'} cannot be written ({reason})"
        assert checkpoints.last == directory / "save_0"
        assert bits(state) == intact
        assert bits(load_checkpoint(directory, best=True).into(state)) == bits(before)
        save(state, 0.25)
    assert {path.name for path in directory.iterdir()} == {"save_0", "save_4"}
    assert bits(load_checkpoint(directory).into(before)) == bits(state)
    assert load_checkpoint(directory, best=True).path == directory / "save_0"


@pytest.mark.parametrize("size", [100, 20_000])  # Python's files fail, or only TensorStore's
def test_no_room_for_a_save(tmp_path: Path, size: int, capfd: pytest.CaptureFixture[str]) -> None:
    assert_a_fault_is_told_and_harmless(tmp_path, no_file_above(size), "File too large")
    assert capfd.readouterr().err == ""


def test_a_directory_that_has_become_read_only(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    assert_a_fault_is_told_and_harmless(tmp_path / "run", unwritable(tmp_path / "run"), "Permission denied")
    assert capfd.readouterr().err == ""


def test_a_full_disk_and_a_read_only_one(tmp_path: Path) -> None:
    child = kills.PROCESSES.Process(target=on_a_small_disk, args=(tmp_path,))
    child.start()
    child.join()
    assert (tmp_path / "said").read_text() == ""
    assert child.exitcode == 0


def on_a_small_disk(directory: Path) -> None:
    """In a process that alone sees the disk; where none may be mounted, with a fault that is like it."""
    os.dup2(os.open(directory / "said", os.O_WRONLY | os.O_CREAT), sys.stderr.fileno())
    disk = directory / "disk"
    disk.mkdir()
    try:
        mount_memory(disk, 2**21)
    except OSError:
        assert_a_fault_is_told_and_harmless(disk, no_file_above(20_000), "File too large")
    else:
        assert_a_fault_is_told_and_harmless(disk / "full", filled(disk), "No space left on device")
        assert_a_fault_is_told_and_harmless(disk / "read-only", read_only(disk), "Read-only file system")


def test_a_failed_save_is_told_on_leaving(tmp_path: Path) -> None:
    failure = f"{tmp_path / 'save_0'} cannot be written (File too large)"

    def save_and(error: Exception | None) -> None:
        with no_file_above(100), Checkpoints(tmp_path, SETTINGS) as checkpoints:
            checkpoints.save(a_state(0), [])
            if error:
                raise error

    with pytest.raises(CheckpointError, match=re.escape(failure)):
        save_and(None)
    other = KeyError("something else")
    with pytest.raises(KeyError) as raised:
        save_and(other)
    assert raised.value is other
    assert other.__notes__ == [failure]


def test_a_power_cut_finds_a_save_on_the_disk_before_an_older_one_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files before it gets its name, the name and all else before the oldest save is moved away."""
    done: list[Any] = []  # the inodes that were synced, and the names that were given up

    def noted(function: Callable[..., None], what: Callable[[Any], Any]) -> Callable[..., None]:
        def call(first: Any, *rest: Any) -> None:
            done.append(what(first))
            function(first, *rest)

        return call

    monkeypatch.setattr(os, "fsync", noted(os.fsync, lambda descriptor: os.fstat(descriptor).st_ino))
    for name in ("rename", "replace"):
        monkeypatch.setattr(os, name, noted(getattr(os, name), lambda old: Path(old).name))
    with Checkpoints(tmp_path, SETTINGS) as checkpoints:
        for seed in range(4):
            checkpoints.save(a_state(seed), [])
    save, temporary = tmp_path / "save_3", "save_3.orbax-checkpoint-tmp"
    assert {path.name for path in tmp_path.iterdir()} == {"save_1", "save_2", "save_3"}
    named, gone = done.index(temporary), done.index("save_0")
    everything = {path.stat().st_ino: path for path in (save, *save.rglob("*"))}
    unsynced = {path for inode, path in everything.items() if inode not in done[:named]}
    assert unsynced == {save / "commit_success.txt"}  # which Orbax writes when it renames
    assert {tmp_path.stat().st_ino, *everything} <= set(done[named:gone])


def test_no_damage_is_loaded_as_if_it_were_whole(tmp_path: Path) -> None:
    """A sample; `python -m examples.trainer.tests.corruptions` is the whole."""
    found = corruptions.corrupt(tmp_path, {"bit flips": 30, "truncations": 30}, seed=1)
    assert found["wrong"] == []
    assert all(set(outcomes) == {corruptions.NAMED, corruptions.HARMLESS} for outcomes in found["outcomes"].values())


def test_a_killed_run_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    """A sample; `python -m examples.trainer.tests.kills` is the whole."""
    found = kills.kill_all(tmp_path, count=1, every=220, seed=1)["kills"]
    assert [kill["wrong"] for kill in found] == [[]] * 3
    assert all(kill["killed"] for kill in found[:2])  # the last one is at a random moment, when it may be over
