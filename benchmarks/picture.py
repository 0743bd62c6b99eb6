"""Draws the results: all ratios over plain JAX by families, and other libraries' models before and after jaxbn."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

FAMILIES = {
    "dense, 1-D": r"dense \d( stride \d)?,",
    "dense, 2-D": r"dense \d×\d( stride \d)?,",
    "dense, 3-D": r"dense \d×\d×\d",
    "large batches": r"large batch",
    "1×1": r"1×1",
    "patches": r"patches",
    "transposed": r"transposed",
    "2 to 32 groups": r"groups",
    "depthwise": r"depthwise",
    "3×3 under vmap, 8 kernels": r"3×3 under",
    "3×3 in lax.scan, lax.map": r"3×3 in",
    "batch norm": r"batch norm \d",
    "batch norm, activation": r"batch norm, ",
    "12 × batch norm, ReLU, conv": r"12 batch",
    "training step": r"(ResNet-18, )?training step",
    "training steps in lax.scan": r".*training steps in scan",
    "second derivatives": r"gradient penalty|Hessian",
}
"""The rows of the picture, and the names of the cases in each."""

COLOURS = {"forward": "#0550ae", "dx": "#bc4c00", "dkernel": "#116329", "together": "#6639ba"}
OFFSETS = {"forward": -0.22, "dx": 0.0, "dkernel": 0.22, "together": 0.0}
LABELS = {"dkernel": "dK", "together": "forward and gradients together"}


def draw(document: Mapping[str, Any], path: Path) -> None:
    """A row for each family of cases, and a dot for each ratio of plain JAX's time to jaxbn's."""
    results = [result for result in document["results"] if result["quantity"] != "compilation"]
    by_family = {
        family: [result for result in results if re.match(pattern, result["case"])]
        for family, pattern in FAMILIES.items()
    }
    families = [family for family, members in by_family.items() if members]
    figure = Figure(figsize=(8.5, 1.6 + 0.3 * len(families)), layout="constrained", facecolor="white")
    axes = figure.subplots()
    for row, family in enumerate(families):
        for result in by_family[family]:
            quantity = result["quantity"] if result["quantity"] in COLOURS else "together"
            style = {"color": COLOURS[quantity], "label": LABELS.get(quantity, quantity), "alpha": 0.75}
            axes.plot(result["ratio"], row + OFFSETS[quantity], "o", markersize=5, markeredgewidth=0, **style)
    axes.axvline(1, color="black", linewidth=1)
    axes.set(xscale="log", ylim=(len(families) - 0.4, -0.6), xlabel="times as fast as plain JAX")
    axes.set_yticks(range(len(families)), families, fontsize=9)
    for row in range(len(families) - 1):
        axes.axhline(row + 0.5, color="#d0d7de", linewidth=0.5)
    _finish(axes)
    _legend(axes, loc="lower right")
    figure.supxlabel(note(document), fontsize=7.5, color="#6e7781")
    figure.savefig(path, dpi=130)


def note(document: Mapping[str, Any]) -> str:
    """What was measured, when, and on what."""
    is_cpu = document.get("platform", "cpu") == "cpu"
    machine = f"{document['cpu']}, {document['cores']} cores" if is_cpu else document["device"]
    names = {"jax": "JAX", "flax": "Flax", "equinox": "Equinox", "dm-haiku": "Haiku", "torch": "PyTorch"}
    versions = [f"{name} {document['versions'][key]}" for key, name in names.items() if key in document["versions"]]
    return f"{document['command']}, {document['date'][:10]}; {machine}\n{', '.join(versions)}"


def _finish(axes: Axes) -> None:
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _legend(axes: Axes, loc: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    named = dict(zip(labels, handles, strict=True))
    axes.legend(named.values(), named.keys(), loc=loc, frameon=False, fontsize=8.5)


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


def draw_before_and_after(document: Mapping[str, Any], path: Path) -> None:
    """A bar for each case from 1, jaxbn's time, to the time before it; and a mark where PyTorch's is."""
    results: Sequence[Mapping[str, Any]] = document["results"]
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
    _finish(axes)
    _legend(axes, loc="lower left")
    figure.supxlabel(note(document), fontsize=7.5, color="#6e7781")
    figure.savefig(path, dpi=130)
