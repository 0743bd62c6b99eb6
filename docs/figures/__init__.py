"""Draws figures of the pages from computed numbers; ``python -m docs.figures`` writes the SVG files."""

from collections.abc import Callable
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from docs.figures import convolution, native, normalisation, report

FIGURES: dict[str, Callable[[], Figure]] = {
    "reach": convolution.reach,
    "padded_delta": convolution.padded_delta,
    "kernel_gradient": convolution.kernel_gradient,
    "reach_of_steps": convolution.reach_of_steps,
    "paths": normalisation.paths,
    "three_terms": normalisation.three_terms,
    "register_block": native.register_block,
    "report": report.report,
}


def write(folder: Path) -> None:
    """Writes every figure into the folder. The bytes are the same each time on one machine with the same versions."""
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": "jaxbn", "svg.fonttype": "path", "font.family": "DejaVu Sans"}):
        for name, draw in FIGURES.items():
            figure = draw()
            _fix_layout(figure)
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})


def _fix_layout(figure: Figure) -> None:
    """Replaces the layout engine by rounded positions, because the engine's last bits differ between runs."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        left, bottom, width, height = axes.get_position(original=True).bounds
        axes.set_position((round(left, 4), round(bottom, 4), round(width, 4), round(height, 4)))
