"""Draws the results of `why_batch_norm.py`, and answers the deck's questions in words."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

LEARNT = 0.9  # the final test accuracy from which a run counts as trained
COLORS = ("0.25", "#56B4E9", "#009E73", "#E69F00", "#D55E00")  # of the variants
WIDTHS = (2, 8, 5.5, 3.5, 1.5)  # so that curves that coincide can all be seen
CHANCE = 0.1


class Record(NamedTuple):
    """The recorded values. The axes of the runs come first. They are traced in training, NumPy arrays afterwards."""

    loss: Float[Any, "*runs steps"]
    zeros: Float[Any, "*runs steps layers"]  # the fraction of each ReLU's outputs that are zero
    convolved: Float[Any, "*runs steps bins"]  # the fraction of the second convolution's outputs in each bin
    shifted: Float[Any, "*runs steps bins"]  # the same for the input of the ReLU after it
    test_accuracy: Float[Any, "*runs chunks"]
    dead: Float[Any, "*runs chunks layers"]  # the fraction of each layer's channels that are zero for every test image
    finite: Bool[Any, "*runs chunks"]  # whether all parameters are finite


class Sweep(NamedTuple):
    """The results of all runs. The first three axes of the record are variants, learning rates and seeds."""

    variants: tuple[str, ...]  # without batch norm, with it, and with β bounded
    rates: Float[np.ndarray, " rates"]
    edges: Float[np.ndarray, " bins+1"]
    record: Record


def draw_learning_rates(sweep: Sweep, path: Path) -> None:
    """Draws final accuracy and dead channels over the learning rate, with crosses where runs diverged."""
    figure = Figure(figsize=(8, 7.5), layout="constrained", facecolor="white")
    above, below = figure.subplots(2, 1, sharex=True)
    finite = sweep.record.finite[..., -1]
    _draw_curves(above, sweep, sweep.record.test_accuracy[..., -1])
    above.axhline(CHANCE, color="0.6", linewidth=0.8, linestyle=":")
    above.set(title=f"After {sweep.record.loss.shape[-1]} steps of gradient descent", ylabel="test images told right")
    _draw_curves(below, sweep, np.where(finite, sweep.record.dead[..., -1, :].mean(-1), np.nan))
    below.set(ylabel="dead channels: zero on each test image", xlabel="learning rate")
    below.legend(loc="upper left", title="mean and range over the seeds; k: β ≥ −kσ", alignment="left")
    figure.savefig(path, dpi=130)


def _draw_curves(axes: Axes, sweep: Sweep, values: Float[np.ndarray, "variants rates seeds"]) -> None:
    """Draws mean and range over the seeds without NaN, and a cross below zero for each rate at which a run diverged."""
    for row, (variant, color, width) in enumerate(zip(sweep.variants, COLORS, WIDTHS, strict=True)):
        curve = np.ma.masked_invalid(values[row])
        axes.plot(
            sweep.rates,
            curve.mean(1),
            color=color,
            linewidth=width,
            label=variant,
            zorder=2 + row,
            solid_capstyle="butt",
        )
        axes.fill_between(sweep.rates, curve.min(1), curve.max(1), color=color, alpha=0.2, linewidth=0)
        diverged = ~sweep.record.finite[row, ..., -1].all(1)
        axes.plot(sweep.rates[diverged], np.full(diverged.sum(), -0.03 - 0.04 * row), "x", color=color)
    axes.axhspan(-0.22, 0, color="0.95", zorder=0)
    axes.text(sweep.rates[0], -0.11, " runs that ended in NaN", va="center", color="0.3")
    axes.set(xscale="log", ylim=(-0.22, 1.03), yticks=np.linspace(0, 1, 6))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.xaxis.set_major_formatter(_tick_label)
    axes.grid(alpha=0.3)


def _tick_label(value: float, position: float) -> str:
    return f"{value:g}"


def draw_distributions(sweep: Sweep, path: Path) -> None:
    """Draws histograms of a layer's values before its ReLU: without batch norm, before and after it (D10, D11)."""
    rate = _first_rate_that_fails(sweep)
    steps = sweep.record.loss.shape[-1]
    shown = [step for step in (0, 1, 2, 3, 5, 10, 30, 100, steps - 1) if step < steps]
    figure = Figure(figsize=(11, 6.5), layout="constrained", facecolor="white")
    panels = [
        ("without batch norm: convolution and bias", 0, sweep.record.shifted),
        ("with batch norm: before it", 1, sweep.record.convolved),
        ("with batch norm: behind it", 1, sweep.record.shifted),
    ]
    reached = np.arcsinh(
        max(_reach(histograms[variant, rate, 0][shown], sweep.edges) for _, variant, histograms in panels)
    )
    for axes, (title, variant, histograms) in zip(figure.subplots(1, 3, sharey=True), panels, strict=True):
        _draw_ridges(axes, sweep.edges, histograms[variant, rate, 0][shown], COLORS[variant])
        axes.set_xlim(-1.6 * reached, 1.1 * reached)
        axes.set_title(title, fontsize="medium")
        axes.set_yticks(-np.arange(len(shown)), [f"step {step}" for step in shown])
    figure.suptitle(
        f"The second layer's values before its ReLU, in one run at the learning rate {sweep.rates[rate]:.2g}"
    )
    figure.savefig(path, dpi=130)


def _reach(histograms: Float[np.ndarray, "steps bins"], edges: np.ndarray) -> float:
    """The largest absolute value, with the precision of a bin."""
    used = np.flatnonzero(histograms.any(0))
    return float(max(abs(edges[used[0]]), abs(edges[used[-1] + 1])))


def _first_rate_that_fails(sweep: Sweep) -> int:
    """The index of the smallest learning rate from which on no run without batch norm learns."""
    learnt = np.any(sweep.record.test_accuracy[0, ..., -1] >= LEARNT, axis=1)
    return min(int(np.max(np.nonzero(learnt)[0], initial=-1)) + 1, len(learnt) - 1)


def _draw_ridges(axes: Axes, edges: np.ndarray, histograms: Float[np.ndarray, "steps bins"], color: str) -> None:
    """Draws histograms below each other. Values that the ReLU sets to zero are grey, and their fraction is printed."""
    scaled = np.arcsinh(edges)
    x = np.repeat(scaled, 2)[1:-1]
    for row, histogram in enumerate(histograms):
        heights = np.repeat(1.3 * histogram / max(histogram.max(), 0.12), 2) - row
        axes.fill_between(x, -row, heights, where=x <= 0, color="0.75", zorder=2 + row, linewidth=0)
        axes.fill_between(x, -row, heights, where=x >= 0, color=color, zorder=2 + row, linewidth=0)
        axes.plot(x, heights, color="white", linewidth=1, zorder=2 + row)
        share = histogram[scaled[1:] <= 0].sum()
        axes.text(0.02, 0.12 - row, f"{share:.0%} < 0", transform=axes.get_yaxis_transform(), color="0.3", zorder=100)
    axes.axvline(0, color="black", linewidth=0.6, zorder=99)
    ticks = [-1000, -100, -10, -3, -1, 0, 1, 3, 10, 100, 1000]
    axes.set_xticks(np.arcsinh(ticks), [f"{tick}" for tick in ticks])
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)
    axes.set_ylim(-len(histograms) + 0.95, 1.5)


def draw_zeros(sweep: Sweep, path: Path) -> None:
    """Draws the fraction of zeros in the output of each ReLU, for every step and learning rate (D11)."""
    shown = [row for row, variant in enumerate(sweep.variants) if row < 2 or variant.endswith("1")]
    layers, steps = sweep.record.zeros.shape[-1], sweep.record.loss.shape[-1]
    figure = Figure(figsize=(11, 7), layout="constrained", facecolor="white")
    grid = figure.subplots(layers, len(shown), sharex=True, sharey=True, squeeze=False)
    zeros = np.ma.masked_where(~np.isfinite(sweep.record.loss)[..., None].repeat(layers, -1), sweep.record.zeros)
    scale = ScalarMappable(Normalize(0, 1), "viridis")
    for column, variant in enumerate(shown):
        grid[0, column].set_title(sweep.variants[variant])
        grid[-1, column].set_xlabel("step")
        for layer, axes in enumerate(grid[:, column]):
            mean = zeros[variant, ..., layer].mean(1)
            axes.pcolormesh(np.arange(steps), sweep.rates, mean, norm=scale.norm, cmap=scale.cmap)
            axes.set(yscale="log")
            axes.yaxis.set_major_formatter(_tick_label)
            grid[layer, 0].set_ylabel(f"layer {layer + 1}\nlearning rate")
    label = "share of the ReLU's outputs that are zero, mean over the seeds; white: NaN"
    figure.colorbar(scale, ax=grid, label=label, format=PercentFormatter(1))
    figure.savefig(path, dpi=130)


def answer(sweep: Sweep) -> str:
    """Returns a table of the results, and the answers to the deck's questions."""
    accuracy, finite = sweep.record.test_accuracy, sweep.record.finite[..., -1]
    learnt = accuracy[..., -1] >= LEARNT
    largest = np.max(np.where(learnt, sweep.rates[:, None], 0), axis=1)  # variants × seeds; 0 if no run has learnt
    beyond = sweep.rates > largest[1].max()
    steps, chunks = sweep.record.loss.shape[-1], accuracy.shape[-1]
    lines = [
        f"A run has learnt if at the end, after {steps} steps, it tells {LEARNT:.0%} of the test images right.",
        f"Largest: the largest learning rate that has learnt, of {len(sweep.rates)}, for each seed.",
        "Best: the best accuracy that one learning rate has reached, in the mean over the seeds.",
        f"Early: the same after {steps // chunks} steps.",
        f"Beyond: what became of the runs at the {beyond.sum()} largest learning rates, too large for batch norm.",
        "",
        f"{'':20} {'largest':{7 * largest.shape[1]}}   best  early  beyond",
    ]
    for row, variant in enumerate(sweep.variants):
        best, early = (accuracy[row, ..., chunk].mean(1).max() for chunk in (-1, 0))
        ends = learnt[row, beyond], ~finite[row, beyond], finite[row, beyond] & ~learnt[row, beyond]
        fates = ", ".join(f"{end.sum()} {word}" for end, word in zip(ends, ("learnt", "NaN", "stuck"), strict=True))
        rates = "".join(f"{rate:7.3g}" for rate in largest[row])
        lines.append(f"{variant:20} {rates} {best:6.1%} {early:6.1%}  {fates}")
    return "\n".join([*lines, "", *_conclusions(sweep.variants, largest)])


def _conclusions(variants: tuple[str, ...], largest: Float[np.ndarray, "variants seeds"]) -> list[str]:
    """Compares each variant with its baseline. The answer is "yes" only if all seeds agree."""
    lines, words = [], []
    for row, baseline in enumerate((0, 1, 1, 1), start=1):
        higher, lower = np.sum(largest[row] > largest[baseline]), np.sum(largest[row] < largest[baseline])
        both = (largest[row] > 0) & (largest[baseline] > 0)
        lines += [
            f"{variants[row]} against {variants[baseline]}:",
            f"    the largest learning rate is higher for {higher} and lower for {lower} of {len(both)} seeds",
        ]
        if both.any():
            times = np.exp(np.mean(np.log(largest[row, both] / largest[baseline, both])))
            lines[-1] += f", {times:.2f} times as high in the geometric mean"
        verdicts = (
            (higher == len(both), "yes"),
            (higher > len(both) / 2, "for most seeds"),
            (higher > lower, "for few seeds"),
        )
        words.append(next((word for holds, word in verdicts if holds), "no"))
    bounds = "; ".join(
        f"{variant.split(', ')[1]}: {word}" for variant, word in zip(variants[2:], words[1:], strict=True)
    )
    return [
        *lines,
        "",
        f"Does batch norm let training survive a larger learning rate (D11)? {words[0]}",
        f'With β bounded, can it be even bigger, "???" (D12)? {bounds}',
    ]
