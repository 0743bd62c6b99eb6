"""The report of `check_custom_vjp`: in a terminal, as JSON, as a page, from pytest; what it tells runs."""

import io
import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, TypeVar
from xml.etree import ElementTree

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbn.testing import VjpMismatch, VjpReport, check_custom_vjp
from jaxbn.testing.collector import Progress
from tests.support.layers import BATCH_NORM, LAYERS, with_rule

T = TypeVar("T")
ROOT = Path(__file__).parents[2]


def given(value: T | None) -> T:
    assert value is not None
    return value


def lossy_batch_norm() -> Any:
    """Without the x̂ term."""

    def bwd(residuals: Any, dy: jax.Array) -> Any:
        x, gamma = residuals
        _, dgamma, dbeta = BATCH_NORM.bwd(residuals, dy)
        std = jnp.sqrt(jnp.mean(jnp.square(x - jnp.mean(x, 0)[None]), 0) + 1e-5)
        return (gamma / std)[None] * (dy - dbeta[None] / len(x)), dgamma, dbeta

    return with_rule(BATCH_NORM.forward, BATCH_NORM.fwd, bwd)


@pytest.fixture(scope="module")
def arrays() -> list[jax.Array]:
    return BATCH_NORM.arrays(0, jnp.float32)


@pytest.fixture(scope="module")
def report(arrays: list[jax.Array]) -> VjpReport:
    return check_custom_vjp(lossy_batch_norm(), BATCH_NORM.forward, *arrays, raise_on_failure=False)


def test_the_text_says_it_all(report: VjpReport) -> None:
    text = str(report)
    (failure,) = report.failures
    assert text.startswith(
        "check_custom_vjp of batch_norm(x: float32[6, 4], gamma: float32[4], beta: float32[4]): FAILED"
    )
    for words in (
        "the cotangent of `x` is wrong for",
        f"worst for {failure.cotangent}",
        f"worst at   x[{', '.join(map(str, given(failure.index)))}]: got {failure.got:.6g}, wanted {failure.want:.6g}",
        "of the cotangent's size, budget",
        "cause      a term parallel to x̂, which is `x` standardised over axis 0,",
        "reproduce  import jax",
        "checked: ",
        "not checked:",
        "the rule is already wrong without them",
    ):
        assert words in text, words


def test_what_it_prints_reproduces_the_failure(report: VjpReport, arrays: list[jax.Array]) -> None:
    (failure,) = report.failures
    printed: list[Any] = []
    exec(given(failure.reproduce), {"fn": lossy_batch_norm(), "args": arrays, "print": printed.append})
    assert float(printed[0]) == pytest.approx(failure.got, rel=1e-4)


def test_reproduction_with_static_arguments_and_several_outputs() -> None:
    def pair(scale: float, params: Any, x: jax.Array) -> Any:
        return {"count": x.size, "y": x * params["w"], "z": jnp.asarray(scale, x.dtype) * params["w"]}

    def bwd(scale: float, residuals: Any, dy: Any) -> Any:
        w, x = residuals
        return {"w": x * dy["y"] + scale * dy["z"]}, -w * dy["y"]

    rule = jax.custom_vjp(pair, nondiff_argnums=(0,))
    rule.defvjp(lambda scale, params, x: (pair(scale, params, x), (params["w"], x)), bwd)
    args = (2.0, {"w": np.linspace(1.0, 2.0, 5)}, np.arange(1.0, 6.0))
    found = check_custom_vjp(rule, pair, *args, transforms=(), raise_on_failure=False)
    (failure,) = found.failures
    assert (failure.argument, failure.cause) == ("x", "the sign: got is −1 times what is wanted")
    printed: list[Any] = []
    exec(given(failure.reproduce), {"fn": rule, "args": args, "print": printed.append})
    assert float(printed[0]) == pytest.approx(failure.got)


def test_json(report: VjpReport) -> None:
    content = json.loads(report.to_json())
    assert content["passed"] is False
    assert content["function"] == "batch_norm"
    (failure,) = content["failures"]
    assert failure["argument"] == "x"
    assert failure["index"] == list(given(report.failures[0].index))
    assert failure["error"] > failure["budget"] > 0
    passed = check_custom_vjp(jnp.sin, jnp.sin, np.arange(3.0), transforms=())
    assert json.loads(passed.to_json())["failures"] == []


def test_json_has_no_numbers_that_json_has_not() -> None:
    rule = with_rule(jnp.sin, lambda x: (jnp.sin(x), x), lambda x, dy: (dy / 0.0,))
    found = check_custom_vjp(rule, jnp.sin, np.arange(1.0, 4.0), transforms=(), raise_on_failure=False)
    assert json.loads(found.to_json())["failures"][0]["error"] == "inf"


def test_the_page_needs_nothing_else_and_maps_every_cell(report: VjpReport, tmp_path: Path) -> None:
    report.to_html(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|src=|<script|<link", page)
    maps = [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]
    assert len(maps) == 3
    got, want = given(report.failures[0].arrays)
    for plane, svg in zip((got, want, got - want), maps, strict=True):
        cells = {given(each.findtext("title")).split("] ")[0]: each for each in svg.iter("rect")}
        assert len(cells) == plane.size
        i, j = given(report.failures[0].index)
        worst = cells[f"[{i}, {j}"]
        assert worst.get("class") == "worst"
        assert float(given(worst.findtext("title")).split("] ")[1]) == pytest.approx(plane[i, j], rel=1e-5)
    for words in ("got, x[:, :]", "wanted, x[:, :]", "got − wanted, x[:, :]", given(report.failures[0].cause)):
        assert words in page


@pytest.mark.parametrize("shape", [(), (7,), (3, 200), (2, 3, 4, 5)])
def test_pages_of_every_rank(shape: tuple[int, ...], tmp_path: Path) -> None:
    rule = with_rule(jnp.sin, lambda x: (jnp.sin(x), x), lambda x, dy: (-jnp.cos(x) * dy,))
    x = np.random.default_rng(0).normal(size=shape)
    found = check_custom_vjp(rule, jnp.sin, x, transforms=(), raise_on_failure=False)
    found.to_html(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert len(re.findall("<svg", page)) == 3
    assert page.count('class="worst"') == 3


def test_the_exception_is_an_assertion_whose_message_is_the_report(arrays: list[jax.Array]) -> None:
    with pytest.raises(AssertionError, match="a term parallel to x̂") as caught:
        check_custom_vjp(lossy_batch_norm(), BATCH_NORM.forward, *arrays, transforms=())
    assert isinstance(caught.value, VjpMismatch)
    assert str(caught.value).strip() == str(caught.value.report)
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)


def test_many_failures_are_told_briefly() -> None:
    def outputs(params: list[jax.Array]) -> list[jax.Array]:
        return [jnp.sin(x) for x in params]

    rule = with_rule(
        outputs, lambda p: (outputs(p), p), lambda p, dy: ([-jnp.cos(x) * d for x, d in zip(p, dy, strict=True)],)
    )
    params = [np.arange(1.0, 3.0) + k for k in range(20)]
    found = check_custom_vjp(rule, outputs, params, transforms=(), raise_on_failure=False)
    assert len(found.failures) == 20
    text = str(found)
    assert "and 17 more:" in text
    assert "... 5 of them not shown; see `failures`" in text


def test_progress_is_silent_until_it_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, now = io.StringIO(), [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    progress = Progress("layer", stream)
    for now[0], step in ((1.9, "first"), (2.5, "second"), (2.6, "third"), (3.0, "fourth")):
        progress(step)
    progress.done()
    lines = [line.strip() for line in stream.getvalue().split("\r") if line.strip()]
    assert lines == ["check_custom_vjp of layer: second (2 s)", "check_custom_vjp of layer: fourth (3 s)"]


def test_the_example_finds_its_mistake_with_jaxs_own_settings(tmp_path: Path) -> None:
    """As a user runs it: float32, one device, another process."""
    command = [sys.executable, "examples/check_your_own_layer.py", "--output", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=_environment())
    assert done.returncode == 0, done.stderr
    assert "check_custom_vjp of my_layer(x: float32[16, 6], gamma: float32[6], beta: float32[6]): FAILED" in done.stdout
    assert "cause      a term parallel to x̂" in done.stdout
    assert json.loads((tmp_path / "report.json").read_text())["passed"] is False
    assert "<svg" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_check_leaves_the_precision_as_it_was() -> None:
    layer = LAYERS["GELU"]
    with jax.enable_x64(False):
        check_custom_vjp(layer.rule, layer.forward, *layer.arrays(0, jnp.float32), transforms=())
        assert jnp.zeros(2).dtype == jnp.float32
    assert jnp.zeros(2).dtype == jnp.float64


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}
