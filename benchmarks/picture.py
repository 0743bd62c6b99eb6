"""Draws the ratios: a row for each case, a bar for each quantity, and a mark at the floor; or, for other libraries'
models, a bar for the time before jaxbn and a mark for PyTorch's."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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


CASES = {
    "#23713": "depthwise 3×3 layer of nnx, forward\njax#23713",
    "#13800": "gradients of a depthwise 1-D convolution\njax#13800",
    "#26266": "dilated depthwise convolution, forward\njax#26266",
    "#12868": "convolutions in a loop\njax#12868",
    "nnx": "training step, Flax nnx",
    "linen": "training step, Flax linen",
    "Equinox": "training step, Equinox",
    "Haiku": "training step, Haiku",
}
"""Which results of `benchmarks.bridges` are drawn, and how they are called."""


def draw_before_and_after(results: Sequence[Mapping[str, Any]], note: str, path: Path) -> None:
    """A bar for each case from 1, jaxbn's time, to the time before it; and a mark where PyTorch's is."""
    by_case = {each["case"]: each for each in results if each["case"].startswith("#") or each["after"] == "layers"}
    figure = Figure(figsize=(8.5, 4.4), layout="constrained", facecolor="white")
    axes = figure.subplots()
    for row, case in enumerate(CASES):
        result = by_case[case]
        axes.barh(row, result["ratio"] - 1, 0.62, left=1, color="#9ec5f8", label="before: the library as it is")
        after = result["milliseconds_after"]
        times = f"{result['milliseconds_before']:.0f} → {after:.{0 if after >= 10 else 1}f} ms"
        axes.annotate(times, (result["ratio"], row), (5, 0), textcoords="offset points", va="center", fontsize=8.5)
        if "torch" in result:
            axes.plot(result["torch"], row, "D", color="#bc4c00", markersize=6, linestyle="", label="PyTorch")
    axes.axvline(1, color="#0550ae", linewidth=2)
    axes.annotate("jaxbn", (1, -0.75), (-4, 0), textcoords="offset points", ha="right", color="#0550ae", weight="bold")
    axes.set(xscale="log", xlim=(0.08, 130), ylim=(len(CASES) - 0.4, -1.1), xlabel="times as long as with jaxbn")
    axes.set_yticks(range(len(CASES)), list(CASES.values()), fontsize=8.5)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    named = dict(zip(labels, handles, strict=True))
    axes.legend(named.values(), named.keys(), loc="lower left", frameon=False, fontsize=8.5)
    figure.supxlabel(note, fontsize=7.5, color="#6e7781")
    figure.savefig(path, dpi=130)
