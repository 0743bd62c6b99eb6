"""The example as its user runs it, and what it promises: the same outputs, and a layer whose derivative was checked."""

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbn.testing import VjpMismatch
from tests.support.compiled import environment_without_effort

EXAMPLES = Path(__file__).parents[1]
PROGRAM = EXAMPLES / "add_layers_to_a_model.py"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The program as a module, under the settings that a user has."""
    monkeypatch.syspath_prepend(EXAMPLES)
    with jax.enable_x64(False), jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield importlib.import_module(PROGRAM.stem)


def trained(model: Any, seed: int) -> Any:
    """The model with other weights, of which no bias is zero."""
    generator = np.random.default_rng(seed)
    params = jax.tree.map(lambda leaf: leaf + 0.2 * generator.normal(size=leaf.shape).astype(np.float32), model.params)
    return model._replace(params=params)


@pytest.mark.parametrize("kind", ["plain", "flax"])
def test_the_extended_model_computes_the_same(example: ModuleType, kind: str) -> None:
    generator = np.random.default_rng(0)
    seen, unseen = generator.random((2, 40, 8, 8, 1), np.float32)
    model = trained(getattr(example, f"{kind}_model")(3), 4)
    extended = getattr(example, f"{kind}_extended")(model, jnp.asarray(seen))
    added = len(jax.tree.leaves(extended.params)) - len(jax.tree.leaves(model.params))
    assert added == example.DEPTH * (2 if kind == "plain" else 4)
    for images in (seen, unseen, 10 * unseen):
        before, after = (each.apply(each.params, each.state, images, False)[0] for each in (model, extended))
        scale = float(jnp.abs(before).max())
        assert scale > 0.1
        np.testing.assert_allclose(after, before, rtol=0, atol=1e-5 * scale)
    in_training, _ = extended.apply(extended.params, extended.state, seen, True)
    before, _ = model.apply(model.params, model.state, seen, True)
    np.testing.assert_allclose(in_training, before, rtol=0, atol=1e-5 * float(jnp.abs(before).max()))


def test_a_model_that_changed_is_refused(example: ModuleType) -> None:
    change = importlib.import_module("fine_tuning").change
    images = np.random.default_rng(0).random((5, 8, 8, 1), np.float32)
    model = trained(example.plain_model(0), 1)
    assert change(model, model, images) == 0
    with pytest.raises(AssertionError, match=r"the extended model's logits differ by \d\.\de-0\d of the largest"):
        change(model, trained(example.plain_model(0), 2), images)


def test_the_check_sees_a_wrong_sign(example: ModuleType) -> None:
    def wrong_bwd(saved: Any, dy: jax.Array) -> tuple[jax.Array, ...]:
        dx, dkernel, dbias = example.gate_bwd(saved, dy)
        return dx, -dkernel, dbias

    wrong = jax.custom_vjp(example.plain_gate)
    wrong.defvjp(example.gate_fwd, wrong_bwd)
    with pytest.raises(VjpMismatch, match="the cotangent of `kernel` is wrong"):
        example.check_gate(wrong)


def test_without_flax_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setitem(sys.modules, "flax", None)
    monkeypatch.delitem(sys.modules, PROGRAM.stem, raising=False)
    with pytest.raises(SystemExit, match=re.escape('Flax is missing; python -m pip install "jaxbn[benchmarks]"')):
        importlib.import_module(PROGRAM.stem)


def test_the_quick_form_runs(tmp_path: Path) -> None:
    path = os.pathsep.join([str(EXAMPLES.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, PROGRAM, "--quick"],
        cwd=tmp_path,
        env=environment_without_effort() | {"PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    checked, *differences = done.stdout.splitlines()[:3]
    assert re.fullmatch(r"check_custom_vjp of gate\(x: .*\): passed", checked)
    for name, line in zip(("plain functions", "Flax"), differences, strict=True):
        assert re.fullmatch(name + r", seed 0: extended, its logits differ by \d\.\de-\d\d of the largest", line)
        assert re.search(name + r": 100%\|█+\| 10/10 ", done.stderr)
    rows = re.findall(
        r"^(.*), rate (0\.01|0\.1) (?: +\d+\.\d% \(\d+\.\d% to \d+\.\d%\)){3}$", done.stdout, re.MULTILINE
    )
    assert rows == [(name, rate) for name in ("plain functions", "Flax") for rate in ("0.01", "0.1")]
    picture = tmp_path / "runs" / "add_layers" / "learning_curves.png"
    assert done.stdout.splitlines()[-1] == f"learning curves: {picture.relative_to(tmp_path)}"
    assert picture.read_bytes().startswith(b"\x89PNG")
