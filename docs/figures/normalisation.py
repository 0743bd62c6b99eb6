"""Draws the figures of batch norm: the three paths of D15, and the three terms of D16 for handwritten digits."""

from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from docs.figures.boards import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    PALE_BLUE,
    PALE_GREEN,
    PALE_ORANGE,
    new_figure,
    write_at,
)
from examples.digits import load_digits
from jaxbn import cnn, derivation, reference

EPSILON = 1e-5


class Activation(NamedTuple):
    """The input of a batch norm and its gradients for one batch, with the channels first as in the deck."""

    images: np.ndarray  # (B, H, W)
    C: np.ndarray  # (B, K, H, W), the convolution's output
    gamma: np.ndarray  # (K,)
    delta: np.ndarray  # ∂Loss/∂y, with the shape of C
    autodiff: np.ndarray  # ∂Loss/∂C by jax.grad through the plain batch norm

    @property
    def terms(self) -> derivation.BatchNormInputGradient:
        return derivation.batch_norm_input_gradient(self.C, self.gamma, self.delta, EPSILON)


@cache
def activation(batch: int = 8) -> Activation:
    """The values for digits in an untrained `jaxbn.cnn` with one block, in float64."""
    with jax.enable_x64(True):
        params, _ = cnn.init(jax.random.key(0), cnn.CNNConfig(features=(8,), dtype=jnp.float64))
        (block,), dense = params
        digits = load_digits()
        images, labels = jnp.asarray(digits.x_train[:batch], jnp.float64), jnp.asarray(digits.y_train[:batch])

        def loss_after_norm(y: jax.Array) -> jax.Array:
            logits = jnp.mean(jax.nn.relu(y), (1, 2)) @ dense.kernel + jnp.expand_dims(dense.bias, 0)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        def apply_norm(C: jax.Array) -> jax.Array:
            return reference.batch_norm(C, block.gamma, block.beta, epsilon=EPSILON)[0]

        C = reference.conv(images, block.kernel, padding="SAME")
        delta = jax.grad(loss_after_norm)(apply_norm(C))
        autodiff = jax.grad(lambda C: loss_after_norm(apply_norm(C)))(C)
        C, delta, autodiff = (np.moveaxis(np.asarray(array), -1, 1) for array in (C, delta, autodiff))
        return Activation(np.asarray(images)[..., 0], C, np.asarray(block.gamma), delta, autodiff)


def three_terms() -> Figure:
    """Draws the terms of D16 as heat maps, for the channel whose indirect terms are the largest, and their sum."""
    found = activation()
    terms = found.terms
    weights = [np.square(term).sum((0, 2, 3)) for term in terms]
    channel = int(np.argmax(np.minimum(weights[1], weights[2]) / weights[0]))
    shown = [array[:, channel] for array in (found.C, found.delta, *terms, terms.total)]
    limit = max(np.abs(array[:2]).max() for array in shown[2:])

    figure = new_figure(11, 3.9)
    panels = figure.subplots(2, 7)
    names = ["image", "x", "δ = ∂Loss/∂y", "direct", "+ through μ", "+ through σ²", "= ∂Loss/∂x"]
    for row, (image, *maps) in enumerate(zip(found.images[:2], *shown, strict=False)):
        limits = [np.abs(shown[0][:2]).max(), np.abs(shown[1][:2]).max(), *[limit] * 4]
        heat_map(panels[row, 0], image, 1, "Greys")
        for axes, values, largest in zip(panels[row, 1:], maps, limits, strict=True):
            heat_map(axes, values, largest, "PuOr")
    for axes, name in zip(panels[0], names, strict=True):
        axes.set_title(name, fontsize=11, color=INK)
    for axes, values in zip(panels[1, 3:], shown[2:], strict=True):
        axes.set_xlabel(f"up to {np.abs(values[:2]).max():.1e}", fontsize=9, color=MUTED)
    difference, largest = np.abs(terms.total - found.autodiff).max(), np.abs(found.autodiff).max()
    figure.supxlabel(
        f"Sum of the three terms against jax.grad, over the batch and all channels: largest difference "
        f"{difference:.1e}, largest gradient {largest:.1e}",
        fontsize=10,
        color=INK,
    )
    return figure


def heat_map(axes: Axes, values: np.ndarray, largest: float, colors: str) -> None:
    """Draws a square for each value. Zero is white: the middle of a diverging colour map, or the end of "Greys"."""
    lowest = 0 if colors == "Greys" else -largest
    axes.imshow(values, cmap=colors, vmin=lowest, vmax=largest, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_edgecolor(MUTED)


def paths() -> Figure:
    """Draws the paths from x to y: direct, through μ, through σ². The edge from μ to σ² is zero and dashed (D15)."""
    figure = new_figure(10, 3.4)
    axes = figure.subplots()
    axes.set(xlim=(-0.5, 10.5), ylim=(2.5, -2.5))
    axes.axis("off")
    places = {"x": (0.0, 0.0), "μ": (4.2, -1.9), "σ²": (4.2, 1.9), "y": (10.0, 0.0)}
    edges = [
        ("x", "y", "γ/√(σ²+ε)", GREEN),
        ("x", "μ", "1/m", BLUE),
        ("μ", "y", "−γ/√(σ²+ε)", BLUE),
        ("x", "σ²", "2·(x−μ)/m", ORANGE),
        ("σ²", "y", "−½·γ·(x−μ)·(σ²+ε)$^{-3/2}$", ORANGE),
        ("μ", "σ²", "−2·mean(x−μ) = 0", MUTED),
    ]
    for start, end, factor, color in edges:
        style = {"arrowstyle": "-|>", "color": color, "linewidth": 1.8, "shrinkA": 19, "shrinkB": 19}
        style["linestyle"] = "--" if color == MUTED else "-"
        axes.annotate("", places[end], places[start], arrowprops=style)
        share = 0.64 if (start, end) == ("x", "y") else 0.28 if color == MUTED else 0.5
        column, row = (1 - share) * np.array(places[start]) + share * np.array(places[end])
        paper = {"facecolor": "white", "edgecolor": "none", "pad": 2}
        axes.text(column, row, factor, ha="center", va="center", fontsize=11, color=color, bbox=paper)
    faces = {"x": PALE_BLUE, "μ": PALE_BLUE, "σ²": PALE_ORANGE, "y": PALE_GREEN}
    for name, (column, row) in places.items():
        axes.plot(column, row, "o", markersize=34, markerfacecolor=faces[name], markeredgecolor=INK, zorder=3)
        write_at(axes, row, column, name, size=14)
    return figure
