"""The picture of a run's learning curves."""

from pathlib import Path
from typing import Any

import numpy as np


def draw_learning_curves(history: list[dict[str, Any]], path: Path) -> None:
    """Loss and accuracy after each epoch; of an ensemble the mean, and each member in a thin line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    panels = figure.subplots(1, 2)
    for part, color, name in (("train", "C0", "training, while it learns"), ("test", "C1", "test, after the epoch")):
        loss, accuracy = (
            np.array([epoch[f"{part}_{metric}"] for epoch in history]).reshape(len(history), -1)
            for metric in ("loss", "accuracy")
        )
        for axes, curves, last in zip(panels, (loss, 100 * accuracy), (".4f", ".1f"), strict=True):
            mean, epochs = curves.mean(1), [epoch["epoch"] for epoch in history]
            if curves.shape[1] > 1:
                axes.plot(epochs, curves, color=color, linewidth=0.6, alpha=0.5)
            axes.plot(
                epochs, mean, color=color, marker="o", markersize=3, label=f"{name}: {mean[-1]:{last}} at the end"
            )
    panels[0].set(title="Loss", xlabel="epoch", ylabel="cross-entropy (nats)", yscale="log")
    panels[1].set(title="Accuracy", xlabel="epoch", ylabel="images told right (%)")
    for axes in panels:
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=150)
