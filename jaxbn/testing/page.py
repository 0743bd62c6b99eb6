"""Renders a report as one self-contained HTML file, with heat maps of the wrong gradients as inline SVG."""

from html import escape
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxbn.testing.report import Failure, VjpReport

CELLS = 48
"""The most cells along a side of a heat map. For a larger array, a cell shows the largest entry of a block."""

WIDTH = 300
"""The width of a heat map in pixels."""

LARGEST_CELL = 34
"""The largest side of a cell in pixels."""


def page(report: "VjpReport") -> str:
    outcome = "passed" if report.passed else f"failed: {len(report.failures)}"
    title = f"{report.function}({', '.join(report.inputs)})"
    failures = "".join(map(_section, report.failures))
    unchecked = "".join(f"<li><b>{escape(check)}</b> {escape(why)}</li>" for check, why in report.unchecked)
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{escape(report.function)}: {outcome}</title>
<style>{_STYLE}</style></head><body>
<h1>{escape(report.function)} <span class="{"good" if report.passed else "bad"}">{outcome}</span></h1>
<p><code>{escape(title)}</code>, {report.seconds:.1f} s</p>
{failures}
<h2>Checked</h2><ul>{"".join(f"<li>{escape(check)}</li>" for check in report.checked)}</ul>
<h2>Not checked</h2><ul>{unchecked or "<li>nothing was left out</li>"}</ul>
</body></html>
"""


def _section(failure: "Failure") -> str:
    rows = {
        "cause": failure.cause,
        "worst at": None if failure.index is None else str(list(failure.index)),
        "got": _number(failure.got),
        "wanted": _number(failure.want),
        "error": _number(failure.error),
        "budget": _number(failure.budget),
    }
    table = "".join(f"<tr><th>{name}<td>{escape(text)}</tr>" for name, text in rows.items() if text is not None)
    code = f"<pre>{escape(failure.reproduce)}</pre>" if failure.reproduce else ""
    return (
        f"<section><h2>{escape(failure.check)}: {escape(failure.message)}</h2><table>{table}</table>"
        f"{_heat_maps(failure)}{code}</section>"
    )


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.6g}"


def _heat_maps(failure: "Failure") -> str:
    if failure.arrays is None or failure.index is None:
        return ""
    got, want = failure.arrays
    rows, columns, index = _two_axes(got.shape, failure.index)
    planes = [_plane(array, rows, columns, failure.index) for array in (got, want, got - want)]
    label = f"{failure.argument}[{', '.join(index)}]" if index else str(failure.argument)
    finite = np.abs(np.concatenate([np.ravel(plane[np.isfinite(plane)]) for plane in planes[:2]]))
    scales = [float(np.max(finite, initial=0.0))] * 2
    difference = np.abs(planes[2][np.isfinite(planes[2])])
    scales.append(float(np.max(difference, initial=0.0)))
    worst = tuple(failure.index[axis] if axis is not None else 0 for axis in (rows, columns))
    figures = (
        f"<figure><figcaption>{name}, {escape(label)}</figcaption>{_svg(plane, scale, worst)}{_legend(scale)}</figure>"
        for name, plane, scale in zip(("got", "wanted", "got − wanted"), planes, scales, strict=True)
    )
    return f'<div class="maps">{"".join(figures)}</div>'


def _two_axes(shape: tuple[int, ...], worst: tuple[int, ...]) -> tuple[int | None, int | None, list[str]]:
    """Returns the two longest axes, which are drawn, and the index of their plane through the worst entry."""
    drawn = sorted(sorted(range(len(shape)), key=lambda axis: -shape[axis])[:2])
    index = [":" if axis in drawn else str(worst[axis]) for axis in range(len(shape))]
    if not drawn:
        return None, None, index
    return (drawn[0], drawn[1], index) if len(drawn) == 2 else (None, drawn[0], index)


def _plane(array: np.ndarray, rows: int | None, columns: int | None, worst: tuple[int, ...]) -> np.ndarray:
    drawn = (rows, columns)
    plane = array[tuple(slice(None) if axis in drawn else worst[axis] for axis in range(array.ndim))]
    return np.atleast_2d(plane)


def _svg(plane: np.ndarray, scale: float, worst: tuple[int, ...]) -> str:
    steps = [-(-length // CELLS) for length in plane.shape]
    height, width = (-(-length // step) for length, step in zip(plane.shape, steps, strict=True))
    side = min(LARGEST_CELL, WIDTH / width)
    cells = []
    for i in range(height):
        for j in range(width):
            block = plane[i * steps[0] : (i + 1) * steps[0], j * steps[1] : (j + 1) * steps[1]]
            value = float(block.flat[int(np.argmax(np.abs(np.nan_to_num(block, nan=np.inf))))])
            marked = ' class="worst"' if (i, j) == (worst[0] // steps[0], worst[1] // steps[1]) else ""
            cells.append(
                f'<rect x="{j * side:.2f}" y="{i * side:.2f}" width="{side:.2f}" height="{side:.2f}" '
                f'fill="{_colour(value, scale)}"{marked}>'
                f"<title>[{i * steps[0]}, {j * steps[1]}] {value:.6g}</title></rect>"
            )
    # The worst cell is drawn last, so that no neighbour covers its frame.
    cells.sort(key=lambda cell: 'class="worst"' in cell)
    size = f'width="{width * side + 4:.0f}" height="{height * side + 4:.0f}"'
    return f'<svg {size} viewBox="-2 -2 {width * side + 4:.2f} {height * side + 4:.2f}">{"".join(cells)}</svg>'


def _colour(value: float, scale: float) -> str:
    """Blue for negative, white for zero, red for positive, black for infinity and NaN."""
    if not np.isfinite(value):
        return "#000"
    strength = min(abs(value) / scale, 1.0) if scale else 0.0
    end = (178, 24, 43) if value > 0 else (33, 102, 172)
    red, green, blue = (round(255 + (channel - 255) * strength) for channel in end)
    return f"#{red:02x}{green:02x}{blue:02x}"


def _legend(scale: float) -> str:
    stops = [_colour(fraction * (scale or 1.0), scale or 1.0) for fraction in (-1, -0.5, 0, 0.5, 1)]
    return (
        f'<div class="legend"><span>{-scale:.3g}</span>'
        f'<i style="background:linear-gradient(90deg,{",".join(stops)})"></i><span>{scale:.3g}</span></div>'
    )


_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;color:#222;background:#fff;max-width:70rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}
.good{color:#1a7f37}.bad{color:#b2182b}
table{border-collapse:collapse}th{text-align:left;padding:.1rem 1rem .1rem 0;font-weight:600;vertical-align:top}
pre{background:#f6f8fa;padding:.8rem;overflow-x:auto;border-radius:4px;font-size:13px}
.maps{display:flex;flex-wrap:wrap;gap:1.5rem;margin:1rem 0}figure{margin:0}figcaption{margin-bottom:.3rem}
rect{stroke:#ddd;stroke-width:.5}rect.worst{stroke:#000;stroke-width:2}
.legend{display:flex;gap:.5rem;align-items:center;font-size:12px}.legend i{flex:1;height:.6rem;border:1px solid #ddd}
"""
