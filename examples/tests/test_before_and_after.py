"""The example with small models: every layer computes by jaxbn after the one line, and the losses stay the same."""

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[1]


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The program with small models and images."""
    monkeypatch.syspath_prepend(EXAMPLES)
    with jax.enable_x64(False), jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        module = importlib.import_module("before_and_after")
        for name, value in {"WIDTHS": (4, 8), "BLOCKS": 1, "SIDE": 8, "BATCH": 8}.items():
            monkeypatch.setattr(module, name, value)
        yield module


def test_the_losses_stay_the_same(
    example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs: dict[str, Any] = {}
    monkeypatch.setattr(example, "draw", lambda found, path, draw=example.draw: (runs.update(found), draw(found, path)))
    example.main(["--steps", "4", "--output", str(tmp_path)])
    printed = capsys.readouterr().out
    for name, run in runs.items():
        assert run.losses.shape == run.seconds.shape == (4, 2)
        np.testing.assert_allclose(run.losses[:, 1], run.losses[:, 0], rtol=1e-4)
        assert np.ptp(run.losses[:, 0]) > 1e-3
        assert f"{name}: 12 layers compute by jaxbn: " in printed  # a convolution, a batch norm and a block of 4, twice
        assert re.search(rf"^{name}: before, a step takes \d+\.\d times as long as after$", printed, re.MULTILINE)
    assert list(runs) == ["Flax", "Equinox"]
    assert (
        len(re.findall(r"^the losses differ by \d\.\de[-+]\d\d in the first ten steps, ", printed, re.MULTILINE)) == 2
    )
    assert re.search(r"^on .+, jax 0\.\d+\.[\d.]+, flax [\d.]+, equinox [\d.]+$", printed, re.MULTILINE)
    assert (tmp_path / "before_and_after.png").read_bytes().startswith(b"\x89PNG")


def test_the_second_model_computes_by_jaxbn(example: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("flax_training", "equinox_training"):
        monkeypatch.setattr(example, name, lambda model, *_: type(model.layers.layers[0]).__module__.split(".")[0])
    assert example.flax_trainings(0) == ("flax", "jaxbn")
    assert example.equinox_trainings(0) == ("equinox", "jaxbn")


def test_the_first_step_is_not_timed(example: ModuleType) -> None:
    run = example.Run(np.zeros((4, 2)), np.array([[100.0, 1.0], [6.0, 2.0], [8.0, 4.0], [7.0, 1.0]]))
    assert run.ratio == 3.5


def test_without_equinox_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setitem(sys.modules, "equinox", None)
    monkeypatch.delitem(sys.modules, "before_and_after", raising=False)
    with pytest.raises(SystemExit, match=re.escape('equinox is missing; python -m pip install "jaxbn[benchmarks')):
        importlib.import_module("before_and_after")
