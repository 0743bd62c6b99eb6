"""On a phone nothing sticks out and a finger can hit every number; in light and dark every text can be read."""

import pytest
from conftest import OpenPage
from playwright.sync_api import Page

CHOOSE = """(options) => Object.entries(options).forEach(([name, value]) =>
  document.querySelector(`input[name="${name}"][value="${value}"]`).click())"""
STATES = [
    {"kind": kind, "stride": stride, "padding": padding, "dilation": dilation}
    for kind in ("output", "input", "tap")
    for stride, padding, dilation in [(1, 0, 1), (1, 2, 1), (2, 1, 2)]
]


@pytest.mark.parametrize("width", [320, 375, 768, 1024, 1199, 1200, 1920])
def test_nothing_is_wider_than_the_screen(open_page: OpenPage, width: int) -> None:
    page = open_page(width)
    for state in STATES:
        page.evaluate(CHOOSE, state)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, state


def test_a_phone_shows_the_grids_of_one_sum_and_a_tap_asks(open_page: OpenPage) -> None:
    page = open_page(375, 812, has_touch=True, is_mobile=True)
    assert shown(page) == ["K", "da", "delta"]
    page.locator('#grid-K td[data-i="1"][data-j="0"]').tap()
    assert shown(page) == ["a", "dK", "delta"]
    assert page.inner_text("#asked") == "∂Loss/∂K(1,0)"
    assert page.evaluate("document.activeElement.closest('figure').id") == "grid-dK"
    page.locator('#grid-a td[data-i="4"][data-j="3"]').tap()
    assert shown(page) == ["K", "da", "delta"]
    assert page.inner_text("#asked") == "∂Loss/∂a(4,3)"
    page.locator('label:has(input[value="output"])').tap()
    assert shown(page) == ["C", "K", "a"]


def shown(page: Page) -> list[str]:
    ids = page.locator("figure:visible").evaluate_all("all => all.map(({id}) => id.replace('grid-', ''))")
    return sorted(ids)


def test_a_finger_can_hit_every_number(open_page: OpenPage) -> None:
    """24 pixels, as WCAG 2.2 wants it, with the largest grids there are."""
    page = open_page(375, 812, has_touch=True, is_mobile=True)
    for state in STATES:
        page.evaluate(CHOOSE, state)
        sizes = page.locator("td[tabindex]:visible, .choice label:visible, .term:visible").evaluate_all(
            "all => all.map(each => each.getBoundingClientRect()).map(({width, height}) => Math.min(width, height))"
        )
        assert min(sizes) >= 24, state


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1280])
def test_every_text_can_be_read(open_page: OpenPage, scheme: str, width: int) -> None:
    """A contrast of 4.5, as WCAG wants it of small text, in each state, with a pair of a term lit."""
    page = open_page(width, color_scheme=scheme)
    for state in STATES:
        page.evaluate(CHOOSE, state)
        page.locator("#terms .term").first.focus()
        texts = page.evaluate(CONTRASTS)
        assert len(texts) > 100
        assert min(contrast for contrast, _ in texts) >= 4.5, (state, min(texts))
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (luminance(background) < 0.1) == (scheme == "dark")


def luminance(rgb: str) -> float:
    return sum(int(channel) / 255 for channel in rgb.strip("rgb()").split(",")) / 3


CONTRASTS = """() => {
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const luminance = (colour) => {
    const [r, g, b] = channels(colour).map((each) => each / 255)
      .map((each) => (each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    const colour = getComputedStyle(element).backgroundColor;
    return channels(colour)[3] === 0 ? ground(element.parentElement) : colour;
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let text = walker.nextNode(); text; text = walker.nextNode()) {
    const element = text.parentElement;
    if (!text.data.trim() || !element.checkVisibility() || element.closest("script, noscript, .unseen")) continue;
    const [one, other] = [getComputedStyle(element).color, ground(element)].map(luminance);
    found.push([(Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05), `${text.data} in ${element.className}`]);
  }
  return found;
}"""
