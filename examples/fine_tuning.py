"""Trains networks, extended and not, for equally long, and draws what came of it; of `add_layers_to_a_model.py`."""

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
"""For each rate, "original" and "extended": loss and accuracy after each epoch, of shape (seeds, 2 · epochs, 2)."""


class Model(NamedTuple):
    """What the training knows of a network, whoever wrote it."""

    apply: Any  # (params, state, images, train) -> logits, state
    params: Any
    state: Any  # running statistics, if there are any


def sgd(rate: Any) -> optax.GradientTransformation:
    return optax.sgd(rate, momentum=0.9)


@partial(jax.jit, static_argnums=0)
def train_step(apply: Any, params: Any, state: Any, memory: Any, rate: Any, images: Any, labels: Any) -> Any:
    def loss(params: Any) -> Any:
        logits, new_state = apply(params, state, images, True)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), new_state

    (value, state), gradients = jax.value_and_grad(loss, has_aux=True)(params)
    updates, memory = sgd(rate).update(gradients, memory, params)
    return optax.apply_updates(params, updates), state, memory, value


@partial(jax.jit, static_argnums=0)
def logits_of(apply: Any, params: Any, state: Any, images: Any) -> jax.Array:
    return apply(params, state, images, False)[0]


@partial(jax.jit, static_argnums=0)
def state_after(apply: Any, params: Any, state: Any, images: Any) -> Any:
    return apply(params, state, images, True)[1]


def train(model: Model, data: Digits, rate: float, epochs: int, seed: int, bar: tqdm) -> tuple[Model, np.ndarray]:
    """The model afterwards; and for each epoch its training loss, and its test accuracy at the end.

    While the weights change quickly, running statistics are of weights that are gone: tested by those, a network that
    is right for 99% of the images has reached 45%. So a pass that changes nothing else goes before each test.
    """
    (apply, params, state), memory, curve = model, sgd(rate).init(model.params), []
    generator, steps = np.random.default_rng(seed), len(data.x_train) // BATCH
    for _ in range(epochs):
        order, losses = generator.permutation(len(data.x_train))[: steps * BATCH], []
        batches = [(data.x_train[rows], data.y_train[rows]) for rows in np.split(order, steps)]
        for images, labels in batches:
            params, state, memory, loss = train_step(apply, params, state, memory, rate, images, labels)
            losses.append(loss)
        for images, _ in batches:
            state = state_after(apply, params, state, images)
        right = logits_of(apply, params, state, data.x_test).argmax(-1) == data.y_test
        curve.append((np.mean(losses), np.mean(right)))
        bar.update()
    return Model(apply, params, state), np.array(curve)


def compare(name: str, create: Any, extend: Any, data: Digits, seeds: int, epochs: int) -> Curves:
    """Trains what ``create(seed)`` gives, and then it and what ``extend(model, images)`` makes of it for as long."""
    curves: dict[tuple[float, str], list[np.ndarray]] = {}
    bar = tqdm(desc=name, total=seeds * epochs * (1 + 2 * len(RATES)), unit="epoch")
    for seed in range(seeds):
        original, before = train(create(seed), data, RATES[0], epochs, seed, bar)
        extended = extend(original, jnp.asarray(data.x_train[:CALIBRATION_IMAGES]))
        differ = change(original, extended, data.x_test)
        bar.write(f"{name}, seed {seed}: extended, its logits differ by {differ:.1e} of the largest")
        for rate in RATES:
            for which, model in (("original", original), ("extended", extended)):
                _, after = train(model, data, rate, epochs, seeds + seed, bar)
                curves.setdefault((rate, which), []).append(np.concatenate([before, after]))
    bar.close()
    return {case: np.stack(of_seeds) for case, of_seeds in curves.items()}


def change(original: Model, extended: Model, images: Any) -> float:
    """The largest difference of their logits, beside the largest logit; raises if it is more than rounding."""
    with jax.default_matmul_precision("highest"):  # An accelerator may round to ten bits, and differently so.
        before, after = logits_of(*original, images), logits_of(*extended, images)
    worst = float(jnp.abs(after - before).max() / jnp.abs(before).max())
    if not worst <= 1e-5:
        raise AssertionError(f"the extended model's logits differ by {worst:.1e} of the largest, not by rounding")
    return worst


def print_table(curves: dict[str, Curves], epochs: int) -> None:
    """Medians over the seeds, with the lowest and the highest."""
    print("test accuracy, the seeds' median (lowest to highest)")
    print(" " * 27 + "".join(f"{title:>26}" for title in ("before", "original, trained on", "extended, trained on")))
    for name, of_cases in curves.items():
        for rate in RATES:
            original, extended = of_cases[rate, "original"][..., 1], of_cases[rate, "extended"][..., 1]
            columns = original[:, epochs - 1], original[:, -1], extended[:, -1]
            print(f"{name}, rate {rate}".ljust(27) + "".join(f"{summary(column):>26}" for column in columns))


def summary(accuracies: np.ndarray) -> str:
    return f"{np.median(accuracies):.1%} ({accuracies.min():.1%} to {accuracies.max():.1%})"


def draw(curves: dict[str, Curves], epochs: int, path: Path) -> None:
    """Test accuracy over the epochs: a row for each network, a column for each rate, a thin line for each seed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7), layout="constrained")
    panels = figure.subplots(len(curves), len(RATES), sharex=True, sharey=True, squeeze=False)
    for row, (name, of_cases) in zip(panels, curves.items(), strict=True):
        for axes, rate in zip(row, RATES, strict=True):
            for which, color in (("original", "C0"), ("extended", "C1")):
                after = 100 * of_cases[rate, which][:, epochs - 1 :, 1]
                axes.plot(range(epochs, 2 * epochs + 1), after.T, color=color, linewidth=0.6, alpha=0.6)
                axes.plot(range(epochs, 2 * epochs + 1), np.median(after, 0), color=color, linewidth=2, label=which)
            before = 100 * of_cases[rate, "original"][:, :epochs, 1]
            axes.plot(range(1, epochs + 1), before.T, color="0.6", linewidth=0.6)
            axes.plot(range(1, epochs + 1), np.median(before, 0), color="0.4", linewidth=2, label="before")
            axes.axvline(epochs, color="0.8", zorder=0)
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.set(title=f"{name}, then at a learning rate of {rate}", xlabel="epoch", ylabel="test accuracy (%)")
            axes.legend(title="medians of the seeds", loc="upper left")
    figure.savefig(path, dpi=120)
