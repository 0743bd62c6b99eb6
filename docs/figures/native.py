"""Draws the register block of the native kernels: where its pixels lie, and its sums."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from docs.figures.boards import (
    BLUE,
    GREEN,
    INK,
    LINE,
    MUTED,
    ORANGE,
    PALE_BLUE,
    PALE_GREEN,
    PALE_ORANGE,
    frame,
    new_figure,
    write_at,
)

PIXELS, VECTORS, LANES = 6, 4, 16
"""The block with AVX-512: rows and columns of sums, each a register of 16 numbers in float32."""
WIDTH = 3.2  # of a vector, in heights


def register_block() -> Figure:
    figure = new_figure(11, 4.3)
    image, block = figure.subplots(1, 2, width_ratios=[4, 7])
    _draw_image(image)
    _draw_block(block)
    return figure


def _draw_image(axes: Axes) -> None:
    """A part of the image: the pixels that one term needs, and the windows that they belong to."""
    height, width = 7, 10
    for i in range(height):
        for j in range(width):
            taken = i == 2 and 2 <= j < 2 + PIXELS
            face = PALE_BLUE if taken else "white"
            axes.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor=face, edgecolor=LINE, linewidth=0.8))
            if taken:
                write_at(axes, i, j, f"x{_subscript(j - 2)}", BLUE, 10)
    frame(axes, 2, 2, (3, 3), ORANGE)
    frame(axes, 2, 1 + PIXELS, (3, 3), ORANGE, "--")
    write_at(axes, 5.1, 3, "window of\nthe first output", ORANGE, 8.5)
    write_at(axes, 5.1, 7.6, "of the last", ORANGE, 8.5)
    axes.set(xlim=(-0.7, width - 0.3), ylim=(height + 0.6, -1.6), aspect="equal")
    axes.set_title("one term (n, c) of the sum:\none tap and one input channel", fontsize=11, color=INK)
    axes.text(4.5, height + 0.2, f"{PIXELS} neighbouring pixels of channel c", ha="center", fontsize=9.5, color=BLUE)
    axes.axis("off")


def _draw_block(axes: Axes) -> None:
    for vector in range(VECTORS):
        _draw_vector(axes, -1.5, vector, f"K(n,c){_subscript(vector)}", PALE_ORANGE, ORANGE)
    for pixel in range(PIXELS):
        axes.add_patch(Rectangle((-1.9, pixel), 1.1, 0.9, facecolor=PALE_BLUE, edgecolor=LINE, linewidth=0.8))
        write_at(axes, pixel + 0.45, -1.35, f"x{_subscript(pixel)}", BLUE, 10)
        for vector in range(VECTORS):
            text = f"sum{_subscript(pixel)}{_subscript(vector)}  +=  x{_subscript(pixel)} · K{_subscript(vector)}"
            _draw_vector(axes, pixel, vector, text, PALE_GREEN, GREEN)
    right = VECTORS * WIDTH
    axes.text(right / 2, -1.95, f"{VECTORS} vectors of {LANES} output channels, loaded once", **_centred(ORANGE))
    axes.text(-2.2, PIXELS / 2, "one number each, in all lanes", rotation=90, va="center", **_centred(BLUE))
    sums, loads = PIXELS * VECTORS, PIXELS + VECTORS
    below = f"{sums} sums stay in {sums} of 32 registers; {sums} multiply-adds for {loads} loads"
    axes.text(right / 2, PIXELS + 0.65, below, **_centred(GREEN))
    axes.set(xlim=(-2.8, right + 0.1), ylim=(PIXELS + 0.9, -2.6))
    axes.set_title("the register block", fontsize=11, color=INK)
    axes.axis("off")


def _draw_vector(axes: Axes, row: float, column: int, text: str, face: str, color: str) -> None:
    left = column * WIDTH
    axes.add_patch(Rectangle((left, row), WIDTH - 0.12, 0.9, facecolor=face, edgecolor=MUTED, linewidth=0.8))
    lanes = [left + lane * (WIDTH - 0.12) / LANES for lane in range(1, LANES)]
    axes.vlines(lanes, row + 0.76, row + 0.9, color=MUTED, linewidth=0.5)
    write_at(axes, row + 0.4, left + (WIDTH - 0.12) / 2, text, color, 8)


def _subscript(number: int) -> str:
    return chr(ord("₀") + number)


def _centred(color: str) -> dict[str, Any]:
    return {"ha": "center", "fontsize": 9.5, "color": color}
