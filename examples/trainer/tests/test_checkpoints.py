"""Checkpoints of a run: what is restored is bit for bit what was saved, or the error says why not."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

from examples.trainer.tests.disks import unwritable
from examples.trainer.tests.states import a_state, bits
from examples.trainer.training import CheckpointError, Checkpoints, TrainState, data_mesh, load_checkpoint, spread

SETTINGS = {"features": (4,), "classes": 10, "rate": 0.1, "data": None}
HISTORY = [{"epoch": 1, "train": {"loss": 0.1 + 0.2, "accuracy": [0.5, 1 / 3]}, "test": float("nan")}]


def save(directory: Path, *seeds: int, accuracies: dict[int, float] | None = None, **options: Any) -> None:
    """Go on with the run of a directory by a save of each seed's state."""
    with Checkpoints(directory, SETTINGS) as checkpoints:
        checkpoints.restore(a_state(0, **options))
        for seed in seeds:
            checkpoints.save(a_state(seed, **options), [{"seed": seed}], accuracy=(accuracies or {}).get(seed))


def restore(directory: Path, like: TrainState | None = None) -> tuple[Checkpoints, TrainState, list[dict[str, Any]]]:
    with Checkpoints(directory, SETTINGS) as checkpoints:
        return checkpoints, *checkpoints.restore(a_state(99) if like is None else like)


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def contents(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def damage(directory: Path, *numbers: int) -> None:
    for number in numbers:
        (directory / f"save_{number}" / "state" / "manifest.ocdbt").write_bytes(b"")


@pytest.mark.parametrize("options", [{}, {"members": 3}, {"dtype": jnp.bfloat16}], ids=str)
def test_what_is_saved_is_restored(tmp_path: Path, options: dict[str, Any]) -> None:
    with Checkpoints(tmp_path, SETTINGS) as checkpoints:
        checkpoints.save(a_state(0, **options), HISTORY)
        path = checkpoints.save(a_state(1, **options), [*HISTORY, {"seed": 1}])
        checkpoints.wait()
        assert checkpoints.last == path == tmp_path / "save_1"
    checkpoints, state, history = restore(tmp_path, a_state(5, **options))
    assert bits(state) == bits(a_state(1, **options))
    assert repr(history) == repr([*HISTORY, {"seed": 1}])
    assert checkpoints.resumed == checkpoints.last == tmp_path / "save_1"
    assert checkpoints.damaged == []


def test_an_empty_directory_gives_the_state_back(tmp_path: Path) -> None:
    given = a_state(0)
    checkpoints, state, history = restore(tmp_path / "made" / "for it", given)
    assert state is given
    assert history == []
    assert checkpoints.resumed is None


def test_a_state_may_be_overwritten_as_soon_as_save_has_returned(tmp_path: Path) -> None:
    other = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf[::-1] if leaf.ndim else leaf, state), donate_argnums=0)
    with Checkpoints(tmp_path, SETTINGS) as checkpoints:
        params = {"kernel": jnp.arange(2.0**20)}
        checkpoints.save(a_state(0)._replace(params=params), [])
        other(params)
    found = load_checkpoint(tmp_path).arrays["params['kernel']"]
    assert found.tobytes() == bits(jnp.arange(2.0**20))[2]


@pytest.mark.parametrize("devices", [(1, 4), (4, 1), (4, 2), (None, 2), (2, None)], ids=str)
def test_it_is_restored_on_another_number_of_devices(tmp_path: Path, devices: tuple[int | None, int | None]) -> None:
    before, after = (
        state if count is None else spread(state, data_mesh(count))
        for state, count in zip([a_state(0), a_state(1)], devices, strict=True)
    )
    with Checkpoints(tmp_path, SETTINGS) as checkpoints:
        checkpoints.save(before, HISTORY)
    _, state, _ = restore(tmp_path, after)
    assert bits(state) == bits(a_state(0))
    for leaf, like in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        assert leaf.sharding == like.sharding
        assert leaf.committed == like.committed


def test_the_last_three_and_the_best_are_kept(tmp_path: Path) -> None:
    save(tmp_path, *range(5), accuracies={0: 0.5, 1: 0.75, 2: 0.7, 3: 0.1})
    assert names(tmp_path) == {"save_1", "save_2", "save_3", "save_4"}
    save(tmp_path, 5, 6, 7, accuracies={6: 0.7})
    assert names(tmp_path) == {"save_1", "save_5", "save_6", "save_7"}
    save(tmp_path, *range(8, 12), accuracies={8: 0.75})
    assert names(tmp_path) == {"save_8", "save_9", "save_10", "save_11"}  # of equals the last is the best
    assert load_checkpoint(tmp_path).path == tmp_path / "save_11"
    assert load_checkpoint(tmp_path, best=True).history == [{"seed": 8}]
    assert load_checkpoint(tmp_path / "save_9", best=True).history == [{"seed": 9}]


def test_without_an_accuracy_the_best_is_the_newest(tmp_path: Path) -> None:
    save(tmp_path, 0, 1)
    assert load_checkpoint(tmp_path, best=True).path == tmp_path / "save_1"


def test_a_damaged_one_is_named_and_stays_as_it_is(tmp_path: Path) -> None:
    save(tmp_path, 0, 1, 2)
    damage(tmp_path, 2)
    before = contents(tmp_path / "save_2")
    checkpoints, state, _ = restore(tmp_path)
    assert bits(state) == bits(a_state(1))
    (line,) = checkpoints.damaged
    assert line.startswith(f"{tmp_path / 'save_2'} is damaged (state: ")
    assert "\n" not in line
    assert load_checkpoint(tmp_path).damaged == {2: line}
    with pytest.raises(CheckpointError) as raised:
        load_checkpoint(tmp_path / "save_2")
    assert str(raised.value) == line
    for seed in range(3, 9):  # each of a process that has only seen the last one
        save(tmp_path, seed)
    assert names(tmp_path) == {"save_2", "save_6", "save_7", "save_8"}
    assert contents(tmp_path / "save_2") == before


def test_three_whole_ones_are_kept_besides_the_damaged(tmp_path: Path) -> None:
    save(tmp_path, 0, 1, 2)
    damage(tmp_path, 1, 2)
    save(tmp_path, 3, 4)
    assert names(tmp_path) == {f"save_{number}" for number in range(5)}


def test_a_run_whose_checkpoints_are_all_damaged_does_not_begin_anew(tmp_path: Path) -> None:
    save(tmp_path, 0, 1)
    damage(tmp_path, 0, 1)
    before = contents(tmp_path)
    with pytest.raises(CheckpointError, match=r"save_1 is damaged \(.*; .*save_0 is damaged \(") as raised:
        restore(tmp_path)
    assert "\n" not in str(raised.value)
    assert contents(tmp_path) == before


def test_other_settings_are_named(tmp_path: Path) -> None:
    save(tmp_path, 0)
    asked = {"features": (8, 4), "classes": 10, "rate": 0.1, "flip": True}
    with Checkpoints(tmp_path, asked) as checkpoints, pytest.raises(CheckpointError) as raised:
        checkpoints.restore(a_state(1))
    assert str(raised.value) == (
        f"{tmp_path / 'save_0'} is of a run with other settings: data is None there and unset here; "
        "features is [4] there and [8, 4] here; flip is unset there and True here"
    )


OTHER_STATES: dict[str, tuple[Callable[[TrainState], TrainState], str]] = {
    "shape": (lambda state: state._replace(step=jnp.zeros(2, jnp.int32)), r": step is int32\[\], and int32\[2\] is wa"),
    "dtype": (lambda state: state._replace(step=jnp.float32(0)), r": step is int32\[\], and float32\[\] is wanted"),
    "key": (
        lambda state: state._replace(key=jax.random.key(0)),
        r": key is uint32\[4\], of rbg keys, and uint32\[2\], of threefry2x32 keys is wanted",
    ),
    "no key": (
        lambda state: state._replace(key=jnp.zeros(4, jnp.uint32)),
        r".* of rbg keys, and uint32\[4\] is wanted",
    ),
    "missing": (lambda state: state._replace(params={"γ": jnp.ones(2)} | state.params), r": it has no params\['γ'\]"),
    "surplus": (lambda state: state._replace(running=[]), r": it has running\[0\], and the run has not"),
}


@pytest.mark.parametrize("kind", OTHER_STATES)
def test_another_state_is_named(tmp_path: Path, kind: str) -> None:
    change, message = OTHER_STATES[kind]
    save(tmp_path, 0)
    with pytest.raises(CheckpointError, match=f"save_0{message}"):
        restore(tmp_path, change(a_state(1)))


def test_a_network_is_loaded_without_its_optimizers_state(tmp_path: Path) -> None:
    save(tmp_path, 7)
    checkpoint = load_checkpoint(tmp_path)
    assert checkpoint.settings == {"features": [4], "classes": 10, "rate": 0.1, "data": None}
    assert checkpoint.step == 7
    state = checkpoint.into(a_state(1)._replace(opt_state=optax.EmptyState()))
    assert bits(state) == bits(a_state(7)._replace(opt_state=optax.EmptyState()))


def test_a_save_that_was_killed_is_cleaned_up(tmp_path: Path) -> None:
    save(tmp_path, 0)
    shutil.copytree(tmp_path / "save_0", tmp_path / "save_1.orbax-checkpoint-tmp")
    shutil.copytree(tmp_path / "save_0", tmp_path / "removed.orbax-checkpoint-tmp" / "save_2")
    save(tmp_path, 1)
    assert names(tmp_path) == {"save_0", "save_1"}
    assert bits(restore(tmp_path)[1]) == bits(a_state(1))


def test_restore_comes_before_save(tmp_path: Path) -> None:
    save(tmp_path, 0)
    with Checkpoints(tmp_path, SETTINGS) as checkpoints, pytest.raises(ValueError, match="`restore` must come first"):
        checkpoints.save(a_state(1), [])


def test_directories_that_are_not_for_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").touch()
    for name, message in [
        ("file", "file: File exists"),
        ("file/below", "below: Not a directory"),
        ("pictures", "pictures is no directory of checkpoints: a.png is in it, and no save_0"),
    ]:
        with pytest.raises(CheckpointError, match=f"{message}$"):
            Checkpoints(tmp_path / name, SETTINGS)
    message = r"locked.* cannot be written to$"
    with (
        TemporaryDirectory("locked") as locked,
        unwritable(Path(locked)),
        pytest.raises(CheckpointError, match=message),
    ):
        Checkpoints(locked, SETTINGS)  # it is not in tmp_path, which nobody else may look into


def test_nothing_to_load(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"run: No such file or directory$"):
        load_checkpoint(tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"save_3 is damaged \(content: No such file or directory\)$"):
        load_checkpoint(tmp_path / "save_3")
    with pytest.raises(CheckpointError, match=r"no checkpoint is in it$"):
        load_checkpoint(tmp_path)


def test_orbax_is_asked_for_by_the_name_of_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "examples.trainer.training.orbax_files", raising=False)
    monkeypatch.delattr("examples.trainer.training.orbax_files", raising=False)
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    with pytest.raises(ImportError, match=r'Checkpoints needs Orbax: python -m pip install "jaxbn\[examples\]"'):
        Checkpoints(tmp_path, SETTINGS)
