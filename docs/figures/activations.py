"""``python -m docs.figures.activations`` draws the activations that `benchmarks.activations` has counted."""

import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from docs.figures.boards import BLUE, GREEN, INK, MUTED, ORANGE, PURPLE, new_figure
from docs.figures.files import save

RESULT = Path(__file__).parents[2] / "benchmarks" / "results" / "activations.json"
COLOURS = {"jaxbn": GREEN, "PyTorch": BLUE, "Flax": ORANGE, "Equinox": PURPLE, "reference": MUTED}
NAMES = {"reference": "plain JAX"}


def draw(result: dict[str, Any]) -> Figure:
    figure = new_figure(7, 4.4)
    axes = figure.subplots()
    row, ticks = 0.0, {}
    for form, counts in result["activations_per_convolution"].items():
        ticks[row + (len(counts) - 1) / 2] = form.replace(", ", "\n")
        for library, colour in COLOURS.items():
            count = counts[library]
            axes.barh(row, count, 0.85, color=colour, label=NAMES.get(library, library))
            axes.text(count + 0.1, row, f"{count:.1f}", va="center", fontsize=9, color=INK)
            row += 1
        row += 0.8
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[: len(COLOURS)], labels[: len(COLOURS)], fontsize=9, loc="lower right")
    axes.set(xlabel="activations kept for each convolution", ylim=(row - 0.9, -0.9), xlim=(0, 13.5))
    axes.set_yticks(list(ticks), list(ticks.values()))
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def main() -> None:
    save(draw(json.loads(RESULT.read_text(encoding="utf-8"))), "activations")


if __name__ == "__main__":
    main()
