"""Pointing at the numbers of the convolution: mouse, keyboard, and every answer there is."""

import json
import re
from typing import Any

import pytest
from playwright.sync_api import Page


def cell(page: Page, grid: str, i: int, j: int) -> Any:
    return page.locator(f'#grid-{grid} td[data-i="{i}"][data-j="{j}"]')


def choose(page: Page, name: str, value: int | str) -> None:
    page.locator(f'label:has(input[name="{name}"][value="{value}"])').click()


def answer(page: Page) -> tuple[str, str, str]:
    return page.inner_text("#asked"), page.inner_text("#sum"), page.inner_text("#check")


def terms(page: Page, which: str = ".term:not(.missing)") -> list[str]:
    labels = page.locator(f"#terms {which}").evaluate_all("all => all.map(each => each.getAttribute('aria-label'))")
    return [label.replace("−", "-") for label in labels]


def lit(page: Page, grid: str) -> set[tuple[int, int]]:
    places = page.locator(f"#grid-{grid} td.lit").evaluate_all("all => all.map(({dataset}) => [dataset.i, dataset.j])")
    return {(int(i), int(j)) for i, j in places}


def test_an_input_pixel_at_the_corner_has_d6s_one_term(page: Page) -> None:
    cell(page, "a", 0, 0).hover()
    assert answer(page) == ("∂Loss/∂a(0,0)", "4", "jaxbn gave 4 ✓")
    assert terms(page) == ["δ(1,1) times K(1,1): 2 times 2 = 4"]
    assert (1, 1) in lit(page, "delta")
    assert "8 of the 9 lie where there is no output" in page.inner_text("#what")
    assert "D5" in page.inner_text("#formula")


def test_an_input_pixel_in_the_middle_has_d6s_nine(page: Page) -> None:
    cell(page, "da", 2, 2).hover()
    assert answer(page) == ("∂Loss/∂a(2,2)", "12", "jaxbn gave 12 ✓")
    assert [term.split(":")[0] for term in terms(page)] == [
        f"δ({2 + n},{2 + m}) times K({n},{m})" for n in (-1, 0, 1) for m in (-1, 0, 1)
    ]
    assert sum(int(term.split("= ")[1]) for term in terms(page)) == 12
    assert lit(page, "delta") == {(i, j) for i in (1, 2, 3) for j in (1, 2, 3)}
    assert lit(page, "K") == {(n, m) for n in (-1, 0, 1) for m in (-1, 0, 1)}
    assert cell(page, "delta", 1, 3).inner_text().split() == ["1", "×−1"]


def test_an_output_has_the_rotated_kernel_of_d3(page: Page) -> None:
    cell(page, "C", 1, 3).hover()
    assert answer(page) == ("C(1,3)", "12", "jaxbn gave 12 ✓")
    assert terms(page)[0] == "a(0,2) times K(1,1): 2 times 2 = 4"
    assert cell(page, "a", 0, 2).inner_text().split() == ["2", "×2"]
    assert lit(page, "a") == {(i, j) for i in (0, 1, 2) for j in (2, 3, 4)}


def test_a_kernel_tap_has_d8s_nine_terms(page: Page) -> None:
    cell(page, "K", -1, -1).hover()
    assert answer(page) == ("∂Loss/∂K(−1,−1)", "−4", "jaxbn gave −4 ✓")
    assert [term.split(":")[0] for term in terms(page)] == [
        f"δ({i},{j}) times a({i + 1},{j + 1})" for i in (1, 2, 3) for j in (1, 2, 3)
    ]
    assert cell(page, "a", 2, 2).inner_text().split() == ["0", "×2"]


def test_stride_padding_and_dilation_change_the_terms(page: Page) -> None:
    cell(page, "da", 2, 2).hover()
    choose(page, "stride", 2)
    assert page.inner_text("#outputs") == "2 × 2 outputs, at rows and columns 1, 3"
    assert [term.split(":")[0] for term in terms(page)] == [
        f"δ({2 + n},{2 + m}) times K({n},{m})" for n in (-1, 1) for m in (-1, 1)
    ]
    choose(page, "padding", 1)
    assert page.inner_text("#outputs") == "3 × 3 outputs, at rows and columns 0, 2, 4"
    assert [term.split(":")[0] for term in terms(page)] == ["δ(2,2) times K(0,0)"]
    choose(page, "dilation", 2)
    assert page.inner_text("#outputs") == "2 × 2 outputs, at rows and columns 1, 3"
    assert terms(page) == []
    assert answer(page) == ("∂Loss/∂a(2,2)", "0", "jaxbn gave 0 ✓")


def test_a_term_that_is_pointed_at_shows_its_pair(page: Page) -> None:
    cell(page, "da", 2, 2).click()
    page.locator("#terms .term").nth(2).hover()
    pair = page.locator("td.pair")
    assert pair.evaluate_all("all => all.map(each => each.getAttribute('aria-label'))") == [
        "K(−1,1) = −1",
        "δ(1,3) = 1",
    ]


def test_a_click_pins_and_escape_lets_go(page: Page) -> None:
    cell(page, "da", 1, 1).click()
    cell(page, "C", 2, 2).hover()
    assert answer(page)[0] == "∂Loss/∂a(1,1)"
    assert "Pinned" in page.inner_text("#hint")
    page.keyboard.press("Escape")
    cell(page, "C", 1, 2).hover()
    assert answer(page)[0] == "C(1,2)"


def test_the_keyboard_reaches_every_part(page: Page) -> None:
    reached = []
    while not reached or reached[-1]["where"] != "slider":
        page.keyboard.press("Tab")
        reached.append(page.evaluate(FOCUS))
        assert len(reached) < 20, reached
    wanted = ["kind", "stride", "padding", "dilation", "grid-a", "grid-K", "grid-C", "grid-da", "grid-dK", "grid-delta"]
    wanted += ["terms", "slider"]
    assert [each["where"] for each in reached if each["where"] in wanted] == wanted
    assert all(each["outline"] for each in reached if each["where"] in wanted), reached


# Where the focus is, and whether it is to be seen: a radio button shows it on the text beside it.
FOCUS = """() => {
  const focused = document.activeElement;
  const shown = focused.type === "radio" ? focused.nextElementSibling : focused;
  const style = getComputedStyle(shown);
  return {
    where: focused.name || focused.closest("figure, #terms, #slider")?.id,
    outline: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
  };
}"""


def test_arrow_keys_move_from_number_to_number(page: Page) -> None:
    cell(page, "da", 2, 2).focus()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowLeft")
    assert answer(page)[0] == "∂Loss/∂a(1,1)"
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")  # already at the edge
    assert answer(page)[0] == "∂Loss/∂a(0,1)"
    assert re.fullmatch(r"∂Loss/∂a\(0,1\): 9 terms, sum (\S+), jaxbn gave \1", page.inner_text("#spoken"))
    page.locator('input[name="stride"]:checked').focus()
    page.keyboard.press("ArrowRight")  # stride 2: outputs at 1 and 3
    cell(page, "delta", 1, 1).focus()
    page.keyboard.press("ArrowRight")
    assert answer(page)[0] == "C(1,3)"
    page.locator("#terms .term").first.focus()
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith("a(1,2) times K(0,1)")
    assert page.locator("td.pair").count() == 2


def test_every_answer_is_the_rules_number(page: Page) -> None:
    """All options, all pixels, taps and outputs: the sum of the terms on the page is the embedded array's entry."""
    numbers = json.loads(page.locator("#numbers").text_content() or "")
    for example in numbers["convolution"]["examples"]:
        got = page.evaluate(ASK_EVERYTHING, {name: example[name] for name in ("stride", "padding", "dilation")})
        for name in ("da", "dK", "C"):
            assert got[name] == [value for row in example[name] for value in row], (name, example)


# In the page, since a thousand questions from outside take long: chooses, asks and reads as a person does.
ASK_EVERYTHING = """(options) => {
  for (const [name, value] of Object.entries(options)) {
    document.querySelector(`input[name="${name}"][value="${value}"]`).click();
  }
  const number = (text) => Number(text.replace("−", "-"));
  const ask = (cell) => {
    cell.focus();
    const products = [...document.querySelectorAll(".product")].map((each) => number(each.textContent));
    const sum = number(document.getElementById("sum").textContent);
    const check = document.getElementById("check").textContent;
    if (products.reduce((total, each) => total + each, 0) !== sum) throw Error(`the terms do not add up to ${sum}`);
    if (check.replace("−", "-") !== `jaxbn gave ${sum} ✓`) throw Error(check);
    return sum;
  };
  const all = (grid) => [...document.querySelectorAll(`#grid-${grid} td[tabindex]`)].map(ask);
  return { da: all("da"), dK: all("dK"), C: all("C") };
}"""


@pytest.mark.parametrize("grid", ["a", "K", "C", "da", "dK", "delta"])
def test_grids_and_their_numbers_have_names(page: Page, grid: str) -> None:
    table = page.locator(f"#grid-{grid} table")
    assert table.get_attribute("role") == "grid"
    assert table.get_attribute("aria-label")
    cells = table.locator("[role=gridcell]")
    assert cells.count() == {"a": 25, "K": 9, "C": 9, "da": 25, "dK": 9, "delta": 9}[grid]
    for label, text in cells.evaluate_all(
        "all => all.map(each => [each.getAttribute('aria-label'), each.querySelector('.value').textContent])"
    ):
        assert label.endswith(f" = {text}")
