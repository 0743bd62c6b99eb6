"""Draws arrays as boards of cells with the deck's indices; the figures consist of these boards.

Colours have the same meaning in all figures: blue for the image, orange for the kernel, green for δ, purple for a
gradient. The background is white, so that the figures can be read on light and on dark pages.
"""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

INK, MUTED, LINE = "#1f2328", "#6e7781", "#c4ccd4"
BLUE, ORANGE, GREEN, PURPLE = "#0550ae", "#bc4c00", "#116329", "#6639ba"
PALE_BLUE, PALE_ORANGE, PALE_GREEN, PALE_PURPLE = "#d6e8ff", "#ffe3cc", "#cdf0d3", "#e9defa"


def new_figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def board(axes: Axes, rows: range, columns: range, title: str, below: str = "") -> None:
    """Prepares a board: its indices along the upper and the left edge, a title, and a line of text below."""
    axes.set(xlim=(columns.start - 1.1, columns.stop - 0.4), ylim=(rows.stop - 0.4, rows.start - 1.1), aspect="equal")
    axes.set_title(title, fontsize=11, color=INK)
    axes.axis("off")
    for i in rows:
        write_at(axes, i, columns.start - 0.75, signed(i), color=MUTED, size=8)
    for j in columns:
        write_at(axes, rows.start - 0.75, j, signed(j), color=MUTED, size=8)
    axes.text(0.5, -0.02, below, transform=axes.transAxes, ha="center", va="top", fontsize=10, color=INK)


def cell(
    axes: Axes, i: float, j: float, text: str = "", face: str = "white", color: str = INK, size: float = 10
) -> None:
    axes.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor=face, edgecolor=LINE, linewidth=0.8))
    write_at(axes, i, j, text, color=color, size=size)


def frame(axes: Axes, i: float, j: float, sides: tuple[int, int], color: str, style: str = "-") -> None:
    """Draws a frame around a block of cells whose first cell is (i, j)."""
    rows, columns = sides
    outline = Rectangle((j - 0.5, i - 0.5), columns, rows, fill=False, edgecolor=color, linewidth=2.2, linestyle=style)
    axes.add_patch(outline)


def write_at(axes: Axes, i: float, j: float, text: str, color: str = INK, size: float = 10) -> None:
    axes.text(j, i, text, ha="center", va="center", fontsize=size, color=color)


def signed(number: float) -> str:
    """The number with a typographic minus sign, which is as wide as a plus."""
    return f"{number:g}".replace("-", "−")


def at(name: str, i: int, j: int) -> str:
    """A name with an index, such as ``K(−1,0)``."""
    return f"{name}({signed(i)},{signed(j)})"
