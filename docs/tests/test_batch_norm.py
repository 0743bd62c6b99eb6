"""Moving the slider: D16's terms are the deck's, their sum is the rule's number, the bars have their lengths."""

import json
from typing import Any

import numpy as np
from playwright.sync_api import Page

from jaxbn import derivation

# What one sees at each of some positions: the numbers of every row, its verdict, and where its bars begin and end.
MOVE = """(positions) => positions.map((position) => {
  const slider = document.getElementById("slider");
  slider.value = position;
  slider.dispatchEvent(new Event("input", { bubbles: true }));
  return [...document.querySelectorAll("#values > li")].map((row) => ({
    numbers: [...row.querySelectorAll("dd")].map((each) => Number(each.textContent.replace("−", "-"))),
    check: row.querySelector(".check").textContent,
    bars: [...row.querySelectorAll(".track")].map((track) => {
      const [all, bar] = [track.getBoundingClientRect(), track.firstChild.getBoundingClientRect()];
      const middle = all.left + all.width / 2;
      return [(bar.left - middle) / all.width, (bar.right - middle) / all.width];
    }),
  }));
})"""


def embedded(page: Page) -> dict[str, Any]:
    return json.loads(page.locator("#numbers").text_content() or "")["batch_norm"]


def test_every_position_shows_the_decks_terms_and_the_rules_sum(page: Page) -> None:
    numbers = embedded(page)
    positions, delta = numbers["positions"], np.reshape(numbers["delta"], (6, 1, 1, 1))
    for position, rows in enumerate(page.evaluate(MOVE, list(range(len(positions))))):
        C = np.reshape([positions[position], *numbers["C"][1:]], (6, 1, 1, 1))
        terms = derivation.batch_norm_input_gradient(C, [numbers["gamma"]], delta, numbers["epsilon"])
        want = np.stack([each.ravel() for each in (*terms, terms.total)], axis=1)
        np.testing.assert_allclose([row["numbers"] for row in rows], want, rtol=0, atol=0.5e-4 + 1e-9)
        for row, rule in zip(rows, numbers["gradients"][position], strict=True):
            assert row["check"].replace("−", "-") == f"jaxbn gave {rule:.4f} ✓"


def test_bars_are_as_long_as_their_numbers(page: Page) -> None:
    rows = [row for position in page.evaluate(MOVE, [0, 40, 96]) for row in position]
    numbers = np.array([row["numbers"] for row in rows])
    ends = np.array([row["bars"] for row in rows])
    lengths = np.where(numbers > 0, ends[..., 1], ends[..., 0])
    per_unit = lengths[0, 0] / numbers[0, 0]
    np.testing.assert_allclose(lengths, per_unit * numbers, atol=2e-3)
    np.testing.assert_allclose(np.where(numbers > 0, ends[..., 0], ends[..., 1]), 0, atol=2e-3)
    assert np.abs(ends).max() <= 0.5 + 1e-3


def test_the_slider_moves_by_keys(page: Page) -> None:
    slider = page.locator("#slider")
    slider.focus()
    assert page.inner_text("#position") == "1.500"
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#position") == "1.625"
    assert slider.get_attribute("aria-valuetext") == "1.625"
    page.keyboard.press("Home")
    assert page.inner_text("#position") == "−6.000"
    assert "direct" in page.inner_text("#batch-norm-spoken")
    assert page.inner_text("#batch-norm-check") == "All six sums together: 0.0000"


def test_the_number_line_shows_what_moves(page: Page) -> None:
    """The first dot stands over the slider's thumb, μ at the mean."""
    page.evaluate(MOVE, [0])
    places = page.evaluate("""() => {
      const line = document.getElementById("line").getBoundingClientRect();
      const centre = (each) => { const box = each.getBoundingClientRect(); return (box.left + box.right) / 2; };
      const at = (each) => (12 * (centre(each) - line.left)) / line.width - 6;
      return { dots: [...document.querySelectorAll(".dot")].map(at), mean: at(document.querySelector(".centre")) };
    }""")
    values = [-6, *embedded(page)["C"][1:]]
    np.testing.assert_allclose(places["dots"], values, atol=0.02)
    np.testing.assert_allclose(places["mean"], np.mean(values), atol=0.02)
