"""The figures of `docs/derivation.md`, drawn from computed numbers: ``python -m docs.figures`` writes the SVG files."""

from collections.abc import Callable
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from docs.figures import convolution, normalisation

FIGURES: dict[str, Callable[[], Figure]] = {
    "reach": convolution.reach,
    "padded_delta": convolution.padded_delta,
    "kernel_gradient": convolution.kernel_gradient,
    "reach_of_steps": convolution.reach_of_steps,
    "paths": normalisation.paths,
    "three_terms": normalisation.three_terms,
}


def write(folder: Path) -> None:
    """Draws every figure into the folder, the same bytes each time on the same machine and versions."""
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": "jaxbn", "svg.fonttype": "path", "font.family": "DejaVu Sans"}):
        for name, draw in FIGURES.items():
            figure = draw()
            _settle(figure)
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})


def _settle(figure: Figure) -> None:
    """Keeps the layout, rounded: the solver's last bits differed from one run to the next."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        left, bottom, width, height = axes.get_position(original=True).bounds
        axes.set_position((round(left, 4), round(bottom, 4), round(width, 4), round(height, 4)))
