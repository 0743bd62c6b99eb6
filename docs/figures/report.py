"""Draws the report of `examples/check_your_own_layer.py`: the wrong gradient, the right one, and what is missing."""

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from docs.figures.boards import INK, MUTED, new_figure
from examples.check_your_own_layer import arguments_of_layer, check, my_layer_fwd


def report() -> Figure:
    """Heat maps of ``dx``, and its error against x̂, which is the term that the backward pass lacks."""
    (failure,) = check().failures
    assert failure.arrays is not None
    assert failure.index is not None
    got, wanted = failure.arrays
    x_hat = np.asarray(my_layer_fwd(*arguments_of_layer())[1][0], np.float64)
    figure = new_figure(11, 4.6)
    *maps, scatter = figure.subplots(1, 4, width_ratios=[2, 2, 2, 3.6])
    scale = np.abs(np.stack([got, wanted])).max()
    titles = ("got", "wanted, by autodiff", "got − wanted")
    for axes, plane, title in zip(maps, (got, wanted, got - wanted), titles, strict=True):
        axes.imshow(plane, cmap="RdBu_r", vmin=-scale, vmax=scale)
        i, j = failure.index
        axes.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, edgecolor="black", linewidth=2))
        axes.set_title(title, fontsize=10, color=INK)
        axes.set(xticks=range(plane.shape[1]), xlabel="channel")
        axes.set_yticks([0, 5, 10, 15])
    maps[0].set_ylabel("image")
    figure.colorbar(maps[0].images[0], ax=maps, shrink=0.8, pad=0.02)
    for channel, color in enumerate(matplotlib.colormaps["viridis"](np.linspace(0, 0.85, got.shape[1]))):
        scatter.plot(x_hat[:, channel], (got - wanted)[:, channel], "o-", color=color, markersize=3, linewidth=0.8)
    scatter.set_title("got − wanted against x̂, a line for each channel", fontsize=10, color=INK)
    scatter.set(xlabel="x̂", ylabel="error of dx")
    scatter.grid(alpha=0.3)
    figure.suptitle(f"{failure.check}: {failure.message}", fontsize=11, color=INK)
    figure.supxlabel("cause: a term parallel to x̂ is missing, with a factor for each channel", fontsize=10, color=MUTED)
    return figure
