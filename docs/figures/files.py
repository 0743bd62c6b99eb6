"""Where the figures of measured numbers are, which no test draws again, and how they are saved."""

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

MEASURED = Path(__file__).parent / "measured"


def save(figure: Figure, name: str) -> None:
    with matplotlib.rc_context({"svg.hashsalt": "jaxbn", "svg.fonttype": "path", "font.family": "DejaVu Sans"}):
        figure.savefig(MEASURED / f"{name}.svg", metadata={"Date": None})
