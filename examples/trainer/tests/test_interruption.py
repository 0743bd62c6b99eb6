"""The first Ctrl-C or SIGTERM is remembered, the second kills, whatever the main thread is doing."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from examples.trainer.training import Interruption

RUN = """
import hashlib, signal, time
from examples.trainer.training import Interruption

def settings():
    wakeup = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup)
    return [signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), wakeup]

before = settings()
with Interruption() as interruption:
    print("until a signal", flush=True)
    while interruption.signal is None:
        time.sleep(0.01)
assert settings() == before
print(interruption.signal.name, flush=True)
with Interruption() as interruption:
    print("in C, for minutes", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
"""


def test_the_first_signal_is_remembered_and_the_second_kills_at_once() -> None:
    root = Path(__file__).parents[3]
    with subprocess.Popen([sys.executable, "-c", RUN], stdout=subprocess.PIPE, text=True, cwd=root) as child:
        watch = threading.Timer(60, child.kill)
        watch.start()
        assert child.stdout is not None
        assert child.stdout.readline() == "until a signal\n"
        child.send_signal(signal.SIGTERM)
        assert [child.stdout.readline() for _ in range(2)] == ["SIGTERM\n", "in C, for minutes\n"]
        child.send_signal(signal.SIGINT)
        time.sleep(0.2)
        assert child.poll() is None
        while child.poll() is None:  # until it has come to see that the second is another one
            child.send_signal(signal.SIGINT)
            time.sleep(0.1)
        watch.cancel()
    assert child.returncode == 128 + signal.SIGINT


def test_only_the_main_thread_can_be_interrupted() -> None:
    raised: list[pytest.ExceptionInfo] = []

    def enter() -> None:
        with pytest.raises(RuntimeError, match=r"Interruption: it is entered in thread 'other'; .* main") as error:
            Interruption().__enter__()
        raised.append(error)

    thread = threading.Thread(target=enter, name="other")
    thread.start()
    thread.join()
    assert raised
