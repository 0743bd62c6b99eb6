"""The numbers in the committed page are autodiff's of the plain forwards, and the page is what the command makes."""

import json
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from docs.explorer import __main__
from jaxbn import reference

COMMITTED = (Path(__file__).parents[2] / "docs" / "explorer.html").read_text(encoding="utf-8")
FOUND = re.search(r'<script type="application/json" id="numbers">(.*?)</script>', COMMITTED)
assert FOUND
NUMBERS: dict[str, Any] = json.loads(FOUND[1])
CONVOLUTION, BATCH_NORM = NUMBERS["convolution"], NUMBERS["batch_norm"]


def test_the_committed_page_is_what_the_command_makes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "new" / "page.html"
    __main__.main(["--output", str(output)])
    assert output.read_bytes() == COMMITTED.encode(), "docs/explorer.html is out of date: python -m docs.explorer"
    assert str(output) in capsys.readouterr().out


def test_the_page_asks_the_network_for_nothing() -> None:
    assert not re.search(r"(src|href)=(?!\"#)|url\(|@import|fetch\(|https?:", COMMITTED)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        __main__.main(["--output", str(tmp_path)])
    assert capsys.readouterr().err == f"python -m docs.explorer: --output {str(tmp_path)!r}: Is a directory\n"


def test_every_choice_has_its_example() -> None:
    names = ("stride", "padding", "dilation")
    there = [tuple(example[name] for name in names) for example in CONVOLUTION["examples"]]
    stride, padding, dilation = (CONVOLUTION["choices"][name] for name in names)
    assert there == [(s, p, d) for s in stride for p in padding for d in dilation]


@pytest.mark.parametrize("example", CONVOLUTION["examples"])
def test_convolution_is_autodiffs(example: dict[str, Any]) -> None:
    """D3, D5 and D7; and the centres, where a kernel of a middle tap alone reads the image."""
    options: dict[str, Any] = {name: example[name] for name in ("stride", "padding", "dilation")}

    def forward(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return reference.conv(x[None, ..., None], kernel[..., None, None], flip_kernel=True, **options)[0, ..., 0]

    given = CONVOLUTION["a"], CONVOLUTION["K"], example["delta"]
    a, kernel, delta = (jnp.asarray(each, jnp.float64) for each in given)
    y, pullback = jax.vjp(forward, a, kernel)
    for name, want in zip(("C", "da", "dK"), (y, *pullback(delta)), strict=True):
        np.testing.assert_array_equal(example[name], want, err_msg=name)

    places = np.arange(1.0, 26).reshape(5, 5)
    around = np.add(example["centres"], 2)  # the page's grids begin two before the image
    middle = jnp.zeros((3, 3)).at[1, 1].set(1.0)
    np.testing.assert_array_equal(forward(jnp.asarray(places), middle), np.pad(places, 2)[np.ix_(around, around)])


def test_batch_norm_is_autodiffs() -> None:
    C, delta, gamma, epsilon = (BATCH_NORM[name] for name in ("C", "delta", "gamma", "epsilon"))
    scale, beta = jnp.asarray([gamma]), jnp.zeros(1)

    def gradient(position: jax.Array) -> jax.Array:
        x = jnp.asarray(C).at[0].set(position)
        _, pullback = jax.vjp(lambda x: reference.batch_norm(x[:, None], scale, beta, epsilon=epsilon)[0], x)
        return pullback(jnp.asarray(delta)[:, None])[0]

    positions = jnp.asarray(BATCH_NORM["positions"])
    assert positions[0] == -6
    assert positions[-1] == 6
    assert C[0] in BATCH_NORM["positions"]
    want = np.asarray(jax.vmap(gradient)(positions))
    np.testing.assert_allclose(BATCH_NORM["gradients"], want, rtol=0, atol=0.5e-4 + 1e-9)
    # No fourth decimal hangs on rounding: the page is the same wherever it is made.
    assert np.min(np.abs(want * 1e4 % 1 - 0.5)) > 1e-6
