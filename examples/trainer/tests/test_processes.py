"""Two processes of two devices each against one, and what the other does when one is killed, silent or not there."""

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from examples.trainer import training
from examples.trainer.tests.small_run import STEPS, new_state, run
from examples.trainer.training import processes

pytestmark = pytest.mark.usefixtures("quickly_compiled", "compiled_once")

ROOT = Path(__file__).parents[3]
HANGING = 120  # seconds
GONE = "train: another of the 2 processes is gone"


@contextmanager
def started(
    output: Path, task: str, count: int = 2, arrival: int = 60, silence: int = 20
) -> Iterator[list[subprocess.Popen[str]]]:
    """The first `count` of two processes; killed at the end, or before where nothing ends."""
    with socket.create_server(("", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "examples.trainer.tests.one_of_two", str(output), str(port)]
    rest, pipe = [task, str(arrival), str(silence)], subprocess.PIPE
    children = [
        subprocess.Popen([*command, str(index), *rest], cwd=ROOT, stdout=pipe, stderr=pipe, text=True)
        for index in range(count)
    ]
    watch = threading.Timer(HANGING, lambda: [child.kill() for child in children])
    watch.start()
    try:
        yield children
    finally:
        watch.cancel()
        for child in children:
            child.kill()
            child.communicate()


def wait_for(child: subprocess.Popen[str], line: str) -> None:
    assert child.stdout is not None
    assert child.stdout.readline() == f"{line}\n", child.communicate()


class Trained(NamedTuple):
    results: list[dict[str, Any]]  # of each process
    checkpoints: Path
    status: int  # of the first, after the second was killed
    stdout: str  # of the first, what is left of it
    stderr: str
    second: tuple[str, str]  # stdout and stderr of the second


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    output = tmp_path_factory.mktemp("processes")
    with started(output, "train") as (first, second):
        wait_for(first, "send me a signal")
        second.send_signal(signal.SIGTERM)
        wait_for(first, "kill me")
        second.kill()
        left = first.communicate(timeout=30)
        results = [json.loads((output / f"{index}.json").read_text()) for index in range(2)]
        return Trained(results, output / "checkpoints", first.returncode, *left, second.communicate())


def test_the_losses_are_those_of_one_process(trained: Trained) -> None:
    mesh = training.data_mesh(4)  # whose parts are normalised by themselves, also where one process has them all
    for name, want in {
        "global": run(new_state()),
        "ensemble with local batch norm": run(training.spread(new_state(2), mesh), local_batch_norm=True),
    }.items():
        first, second = (result[name] for result in trained.results)
        np.testing.assert_allclose(first["train"], want.train, rtol=1e-5)
        np.testing.assert_allclose(first["test"], want.test, rtol=1e-5)
        assert first == second  # what has been learnt too, to the last bit


def test_a_run_goes_on_from_the_checkpoint_of_two_processes(trained: Trained) -> None:
    """In two processes, and in one with one device."""
    want = trained.results[0]["global"]["train"]
    halves = [trained.results[0][name]["train"] for name in ("first half", "second half")]
    np.testing.assert_array_equal(np.concatenate(halves), want)
    with training.Checkpoints(trained.checkpoints, {}) as checkpoints:
        state, _ = checkpoints.restore(new_state())
    np.testing.assert_allclose(run(state, STEPS // 2).train, want[STEPS // 2 :], rtol=1e-5)


def test_a_signal_to_one_stops_both_at_one_step(trained: Trained) -> None:
    (step, own, known), other = (result["stopped"] for result in trained.results)
    assert step > 3
    assert (own, known) == (None, signal.SIGTERM)
    assert other == [step, signal.SIGTERM, signal.SIGTERM]


def test_devices_that_processes_cannot_share_evenly_are_refused(trained: Trained) -> None:
    wanted = "it must be from 1 to 4, all that there are, a multiple of the 2 processes"
    for result in trained.results:
        assert result["refused"] == [f"data_mesh: `devices` is {count}; {wanted}" for count in (3, 6)]


def test_one_that_is_killed_leaves_the_other_with_an_error(trained: Trained) -> None:
    assert (trained.status, said(trained.stderr)) == (1, [GONE])


def test_only_the_first_is_heard(trained: Trained) -> None:
    assert trained.stdout == ""  # nor Gloo, between the lines that were waited for
    assert trained.second[0] == ""
    assert said(trained.second[1]) == []


def said(stderr: str) -> list[str]:
    """All but what Grain has to say of some versions of JAX."""
    return [line for line in stderr.splitlines() if "absl:Grain" not in line]


@pytest.mark.parametrize(("killed", "number"), [(0, signal.SIGKILL), (1, signal.SIGSTOP)])
def test_without_the_coordinator_or_a_sign_of_life_there_is_an_error(
    tmp_path: Path, killed: int, number: signal.Signals
) -> None:
    """JAX aborts here, and its threads write more lines to stderr, before this one or after it."""
    with started(tmp_path, "wait", silence=5) as children:
        wait_for(children[0], "kill me")
        children[killed].send_signal(number)
        _, error = children[1 - killed].communicate(timeout=30)
        assert GONE in error.splitlines(), error
        assert children[1 - killed].returncode == 1


def test_a_process_that_never_comes(tmp_path: Path) -> None:
    with started(tmp_path, "wait", count=1, arrival=2) as (child,):
        _, error = child.communicate(timeout=60)
        assert error.splitlines()[-1] == "train: not all of the 2 processes have come within 2 seconds"
        assert child.returncode == 1


def test_a_save_that_fails_for_another_process_is_not_said_to_fail_for_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        raise jax.errors.JaxRuntimeError("UNKNOWN: Gloo AllGather failed")

    with training.Checkpoints(tmp_path, {}) as checkpoints:
        for name, call in (("begin", lambda: checkpoints.save(new_state(), [])), ("wait", checkpoints.wait)):
            with monkeypatch.context() as patch:
                patch.setattr(checkpoints._writer, name, fail)
                with pytest.raises(jax.errors.JaxRuntimeError, match="Gloo"):
                    call()


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("localhost:1", "Connection refused"),
        ("host.invalid:1", ".*"),
    ],
)
def test_a_coordinator_that_is_not_there(monkeypatch: pytest.MonkeyPatch, address: str, problem: str) -> None:
    monkeypatch.setattr(processes, "ARRIVAL", 0.2)
    wanted = rf"join_processes: `coordinator` is '{address}'; nobody answers there \({problem}\)"
    with pytest.raises(ConnectionError, match=wanted), training.join_processes(address, 1, 2, tell=print):
        pass


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("localhost:3000", 2, 2), "join_processes: `process_id` is 2; it must be from 0 to 1"),
        (("localhost:3000", -1, 2), "join_processes: `process_id` is -1; it must be from 0 to 1"),
        (("localhost:3000", None, 2), "join_processes: `coordinator`, `process_id` and `process_count` go together"),
        ((None, 0, 2), "join_processes: `coordinator`, `process_id` and `process_count` go together"),
        (("localhost", 0, 2), "join_processes: `coordinator` is 'localhost'; it must be HOST:PORT"),
    ],
)
def test_arguments_that_make_no_sense(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message), training.join_processes(*arguments, tell=print):
        pass
