"""Draws the ratios: a row for each case, a bar for each quantity, and a mark at the floor."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullFormatter

from benchmarks.cases import DENSE, RANDOM
from benchmarks.measure import Result

COLORS = {
    "forward": "C0",
    "dx": "C1",
    "dkernel": "C2",
    "both ways": "C3",
    "gradient": "C5",
    "time": "C4",
    "compilation": "C7",
}
BAR = 0.26


def draw(results: Sequence[Result], title: str, path: Path) -> None:
    shown = [result for result in results if not result.case.startswith(f"{RANDOM} ")]
    dense = [result for result in shown if result.case.startswith(f"{DENSE} ")]
    others = [result for result in shown if result not in dense]
    panels = [panel for panel in (others, dense) if panel]
    rows = max(len({result.case for result in panel}) for panel in panels)
    figure = Figure(figsize=(8 * len(panels), 2 + 0.32 * rows), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _draw_panel(axes, panel)
    used = {result.quantity for result in shown}
    handles = [Patch(color=color, label=quantity) for quantity, color in COLORS.items() if quantity in used]
    floor = Line2D([], [], color="black", marker="|", markersize=9, linestyle="", label="floor")
    figure.legend(handles=[*handles, floor], loc="outside lower center", ncols=4 * len(panels))
    figure.suptitle(title)
    figure.savefig(path, dpi=110)


def _draw_panel(axes: Axes, results: Sequence[Result]) -> None:
    cases = list(dict.fromkeys(result.case for result in results))
    for row, case in enumerate(cases):
        members = [result for result in results if result.case == case]
        for place, result in enumerate(members):
            height = row + (place - (len(members) - 1) / 2) * BAR
            axes.barh(height, result.ratio - 1, BAR, left=1, color=COLORS[result.quantity])
            if result.floor is not None:
                axes.plot(result.floor, height, color="black", marker="|", markersize=9)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set(xscale="log", xlabel="times as fast as plain autodiff", ylim=(len(cases) - 0.4, -0.6))
    axes.set_yticks(range(len(cases)), cases)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
