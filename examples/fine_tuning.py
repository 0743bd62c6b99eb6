"""The training loop, table and picture of `add_layers_to_a_model.py`, which compares original and extended networks."""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from digits import Digits
from tqdm import tqdm

BATCH, CALIBRATION_IMAGES = 32, 512
RATES = (0.01, 0.1)

Curves = dict[tuple[float, str], np.ndarray]
"""For each learning rate and "original" or "extended": loss and accuracy per epoch, of shape (seeds, 2 · epochs, 2)."""


class Model(NamedTuple):
    """A network of any library, in the form that the training loop uses."""

    apply: Any  # (params, state, images, train) -> logits, state
    params: Any
    state: Any  # such as running statistics


def sgd(rate: Any) -> optax.GradientTransformation:
    return optax.sgd(rate, momentum=0.9)


@partial(jax.jit, static_argnums=0)
def train_step(apply: Any, params: Any, state: Any, momentum: Any, rate: Any, images: Any, labels: Any) -> Any:
    def loss(params: Any) -> Any:
        logits, new_state = apply(params, state, images, True)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), new_state

    (value, state), gradients = jax.value_and_grad(loss, has_aux=True)(params)
    updates, momentum = sgd(rate).update(gradients, momentum, params)
    return optax.apply_updates(params, updates), state, momentum, value


@partial(jax.jit, static_argnums=0)
def logits_of(apply: Any, params: Any, state: Any, images: Any) -> jax.Array:
    return apply(params, state, images, False)[0]


@partial(jax.jit, static_argnums=0)
def state_after(apply: Any, params: Any, state: Any, images: Any) -> Any:
    return apply(params, state, images, True)[1]


def train(model: Model, data: Digits, rate: float, epochs: int, seed: int, bar: tqdm) -> tuple[Model, np.ndarray]:
    """Returns the trained model, and the training loss and the test accuracy of each epoch.

    While the weights change quickly, the running statistics are outdated: with them, a network that is right for 99 %
    of the images was measured at 45 %. So another pass before each test updates the statistics and nothing else.
    """
    (apply, params, state), momentum, curve = model, sgd(rate).init(model.params), []
    generator, steps = np.random.default_rng(seed), len(data.x_train) // BATCH
    for _ in range(epochs):
        order, losses = generator.permutation(len(data.x_train))[: steps * BATCH], []
        batches = [(data.x_train[rows], data.y_train[rows]) for rows in np.split(order, steps)]
        for images, labels in batches:
            params, state, momentum, loss = train_step(apply, params, state, momentum, rate, images, labels)
            losses.append(loss)
        for images, _ in batches:
            state = state_after(apply, params, state, images)
        right = logits_of(apply, params, state, data.x_test).argmax(-1) == data.y_test
        curve.append((np.mean(losses), np.mean(right)))
        bar.update()
    return Model(apply, params, state), np.array(curve)


def compare(name: str, create: Any, extend: Any, data: Digits, seeds: int, epochs: int) -> Curves:
    """Trains ``create(seed)``, then this model and ``extend(model, images)``, each for the same number of epochs."""
    curves: dict[tuple[float, str], list[np.ndarray]] = {}
    bar = tqdm(desc=name, total=seeds * epochs * (1 + 2 * len(RATES)), unit="epoch")
    for seed in range(seeds):
        original, before = train(create(seed), data, RATES[0], epochs, seed, bar)
        extended = extend(original, jnp.asarray(data.x_train[:CALIBRATION_IMAGES]))
        difference = change(original, extended, data.x_test)
        bar.write(f"{name}, seed {seed}: extended, its logits differ by {difference:.1e} of the largest")
        for rate in RATES:
            for kind, model in (("original", original), ("extended", extended)):
                _, after = train(model, data, rate, epochs, seeds + seed, bar)
                curves.setdefault((rate, kind), []).append(np.concatenate([before, after]))
    bar.close()
    return {key: np.stack(curves_of_seeds) for key, curves_of_seeds in curves.items()}


def change(original: Model, extended: Model, images: Any) -> float:
    """Returns the logits' largest difference, relative to the largest logit. Raises if rounding does not explain it."""
    with jax.default_matmul_precision("highest"):  # The default on a GPU is TF32, which rounds the two differently.
        before, after = logits_of(*original, images), logits_of(*extended, images)
    worst = float(jnp.abs(after - before).max() / jnp.abs(before).max())
    if not worst <= 1e-5:
        raise AssertionError(f"the extended model's logits differ by {worst:.1e} of the largest, not by rounding")
    return worst


def print_table(curves: dict[str, Curves], epochs: int) -> None:
    """Prints the median, lowest and highest accuracy over the seeds."""
    print("test accuracy, the seeds' median (lowest to highest)")
    print(" " * 27 + "".join(f"{title:>26}" for title in ("before", "original, trained on", "extended, trained on")))
    for name, of_network in curves.items():
        for rate in RATES:
            original, extended = of_network[rate, "original"][..., 1], of_network[rate, "extended"][..., 1]
            columns = original[:, epochs - 1], original[:, -1], extended[:, -1]
            print(f"{name}, rate {rate}".ljust(27) + "".join(f"{summary(column):>26}" for column in columns))


def summary(accuracies: np.ndarray) -> str:
    return f"{np.median(accuracies):.1%} ({accuracies.min():.1%} to {accuracies.max():.1%})"


def draw(curves: dict[str, Curves], epochs: int, path: Path) -> None:
    """Draws test accuracies: a row of panels for each network, a column for each rate, a thin line for each seed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7), layout="constrained")
    panels = figure.subplots(len(curves), len(RATES), sharex=True, sharey=True, squeeze=False)
    for row, (name, of_network) in zip(panels, curves.items(), strict=True):
        for axes, rate in zip(row, RATES, strict=True):
            for kind, color in (("original", "C0"), ("extended", "C1")):
                after = 100 * of_network[rate, kind][:, epochs - 1 :, 1]
                axes.plot(range(epochs, 2 * epochs + 1), after.T, color=color, linewidth=0.6, alpha=0.6)
                axes.plot(range(epochs, 2 * epochs + 1), np.median(after, 0), color=color, linewidth=2, label=kind)
            before = 100 * of_network[rate, "original"][:, :epochs, 1]
            axes.plot(range(1, epochs + 1), before.T, color="0.6", linewidth=0.6)
            axes.plot(range(1, epochs + 1), np.median(before, 0), color="0.4", linewidth=2, label="before")
            axes.axvline(epochs, color="0.8", zorder=0)
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.set(title=f"{name}, then at a learning rate of {rate}", xlabel="epoch", ylabel="test accuracy (%)")
            axes.legend(title="medians of the seeds", loc="upper left")
    figure.savefig(path, dpi=120)
