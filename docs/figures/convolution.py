"""Draws the figures of convolution: D5, D6, D8, and D5 with a stride and with a dilation."""

from itertools import product

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from docs.figures.boards import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    PALE_BLUE,
    PALE_GREEN,
    PALE_ORANGE,
    PALE_PURPLE,
    PURPLE,
    at,
    board,
    cell,
    frame,
    new_figure,
    signed,
    write_at,
)
from jaxbn import derivation

# The deck's sizes: a 5 × 5 image, a 3 × 3 kernel, the 3 × 3 outputs 1 ≤ i, j < 4 of the valid region.
IMAGE, OUTPUTS, TAPS = range(5), range(1, 4), range(-1, 2)
A = np.array([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3], [5, 8, 9, 7, 9], [3, 2, 3, 8, 4], [6, 2, 6, 4, 3]])
DELTA = np.array([[2, -1, 3], [1, 4, -2], [-3, 1, 2]])
K = np.array([[1, 2, -1], [3, -2, 1], [-1, 1, 2]])


def reach() -> Figure:
    """Draws the outputs that a pixel contributes to, each with its tap, and their number for every pixel (D5)."""
    figure = new_figure(11, 3.2)
    *boards, counts = figure.subplots(1, 4)
    for axes, (i, j) in zip(boards, [(0, 0), (1, 3), (2, 2)], strict=True):
        board(axes, IMAGE, IMAGE, f"pixel {at('a', i, j)}")
        for row, column in product(IMAGE, IMAGE):
            tap = row - i, column - j
            reached = row in OUTPUTS and column in OUTPUTS and tap[0] in TAPS and tap[1] in TAPS
            cell(axes, row, column, at("K", *tap) if reached else "", PALE_GREEN if reached else "white", ORANGE, 6.5)
        frame(axes, 1, 1, (3, 3), GREEN, "--")
        frame(axes, i, j, (1, 1), BLUE)
    ones = np.ones((1, 1, 3, 3))
    number = derivation.conv_input_gradient(ones[0], ones)[0]
    board(counts, IMAGE, IMAGE, "outputs reached")
    for i, j in product(IMAGE, IMAGE):
        cell(counts, i, j, signed(number[i, j]), PALE_BLUE, BLUE)
    frame(counts, 1, 1, (3, 3), GREEN, "--")
    return figure


def padded_delta() -> Figure:
    """Draws δ padded with zeros, with the kernel in the corner and in the centre, and the gradient (D6)."""
    figure = new_figure(11, 3.9)
    kernel, corner, centre, result = figure.subplots(1, 4, width_ratios=[3.5, 7, 7, 5])
    gradient = derivation.conv_input_gradient(DELTA[None], K[None, None])[0]
    _numbers(kernel, K, TAPS, "kernel K, not rotated", PALE_ORANGE, ORANGE)
    sums = [
        f"{at('δ', 1, 1)}·{at('K', 1, 1)} = {signed(gradient[0, 0])}",
        f"{at('δ', 1, 1)}·{at('K', -1, -1)} + … + {at('δ', 3, 3)}·{at('K', 1, 1)} = {signed(gradient[2, 2])}",
    ]
    for axes, place, text in ((corner, 0, sums[0]), (centre, 2, sums[1])):
        _padded(axes, place, f"K about ({place},{place}) on padded δ", text)
    _numbers(result, gradient, IMAGE, "gradient ∂Loss/∂a", PALE_PURPLE, PURPLE)
    for place in (0, 2):
        frame(result, place, place, (1, 1), ORANGE)
    return figure


def _padded(axes: Axes, place: int, title: str, below: str) -> None:
    """Draws the padded δ, and the kernel centred at (place, place) with its taps as small numbers in the cells."""
    around = range(-1, 6)
    board(axes, around, around, title, below)
    for i, j in product(around, around):
        inside = i in OUTPUTS and j in OUTPUTS
        text, color = (signed(DELTA[i - 1, j - 1]), GREEN) if inside else ("0", MUTED)
        cell(axes, i, j, text, PALE_GREEN if inside else "white", color)
    for n, m in product(TAPS, TAPS):
        axes.text(
            place + m + 0.45, place + n + 0.45, signed(K[n, m]), ha="right", va="bottom", fontsize=7, color=ORANGE
        )
    frame(axes, 0, 0, (5, 5), BLUE, "--")
    frame(axes, place - 1, place - 1, (3, 3), ORANGE)


def kernel_gradient() -> Figure:
    """Draws δ sliding along the image, with one position for each tap of the kernel (D8)."""
    figure = new_figure(11, 3.9)
    delta, first, last, result = figure.subplots(1, 4, width_ratios=[3.5, 5, 5, 3.5])
    gradient = derivation.conv_kernel_gradient(A[None], DELTA[None])[0, 0]
    _numbers(delta, DELTA, OUTPUTS, "δ", PALE_GREEN, GREEN)
    for axes, tap in ((first, -1), (last, 1)):
        start = 1 - tap  # δ(1,1) lies on a(1-n, 1-m)
        terms = [f"{at('δ', i, i)}·{at('a', i - tap, i - tap)}" for i in (1, 3)]
        text = f"{terms[0]} + … + {terms[1]} = {signed(gradient[1 + tap, 1 + tap])}"
        _numbers(axes, A, IMAGE, f"tap {at('K', tap, tap)}: δ on the image", PALE_BLUE, BLUE, text)
        for i, j in product(range(3), range(3)):
            place, weight = (start + i, start + j), signed(DELTA[i, j])
            axes.text(place[1] + 0.45, place[0] + 0.45, weight, ha="right", va="bottom", fontsize=7, color=GREEN)
        frame(axes, start, start, (3, 3), GREEN)
    _numbers(result, gradient, TAPS, "gradient ∂Loss/∂K", PALE_PURPLE, PURPLE)
    for tap in (-1, 1):
        frame(result, tap, tap, (1, 1), GREEN)
    return figure


def _numbers(
    axes: Axes, values: np.ndarray, indices: range, title: str, face: str, color: str, below: str = ""
) -> None:
    board(axes, indices, indices, title, below)
    for row, i in enumerate(indices):
        for column, j in enumerate(indices):
            cell(axes, i, j, signed(values[row, column]), face, color)


def reach_of_steps() -> Figure:
    """Draws, in one dimension, a line from each input to each output that uses it, for a stride and for a dilation."""
    figure = new_figure(11, 2.9)
    for axes, (stride, dilation) in zip(figure.subplots(1, 3), [(1, 1), (2, 1), (1, 2)], strict=True):
        axes.set(xlim=(-1.4, 6.5), ylim=(2.0, -1.0))
        axes.set_title(f"stride {stride}, dilation {dilation}", fontsize=11, color=INK)
        axes.axis("off")
        _lines(axes, stride, dilation)
    return figure


def _lines(axes: Axes, stride: int, dilation: int, size: int = 7, taps: int = 3, marked: int = 3) -> None:
    """Draws inputs above, outputs below the middle of their windows, and the taps on the lines of the marked input."""
    outputs = range((size - dilation * (taps - 1) - 1) // stride + 1)
    reached = [0] * size
    for p, n in product(outputs, range(taps)):
        i, below = p * stride + n * dilation, p * stride + dilation
        reached[i] += 1
        color, width, order = (ORANGE, 2.2, 2) if i == marked else (MUTED, 0.6, 1)
        axes.plot([i, below], [0, 1.6], color=color, linewidth=width, zorder=order)
        if i == marked:
            paper = {"facecolor": "white", "edgecolor": "none", "pad": 1}
            axes.text(0.25 * i + 0.75 * below, 1.2, f"K({n})", color=ORANGE, fontsize=9, ha="center", bbox=paper)
    for i in range(size):
        _circle(axes, 0, i, BLUE, PALE_BLUE, width=2.2 if i == marked else 0.8)
        write_at(axes, -0.6, i, f"{reached[i]}×", MUTED, 9)
    for p in outputs:
        _circle(axes, 1.6, p * stride + dilation, GREEN, PALE_GREEN, text=str(p))
    write_at(axes, 0, -1.1, "x", BLUE, 12)
    write_at(axes, 1.6, -1.1, "y", GREEN, 12)


def _circle(
    axes: Axes, row: float, column: int, color: str, face: str, *, text: str | None = None, width: float = 0.8
) -> None:
    style = {"markerfacecolor": face, "markeredgecolor": color, "markeredgewidth": width}
    axes.plot(column, row, "o", markersize=17, zorder=3, **style)
    write_at(axes, row, column, str(column) if text is None else text, color, 9)
