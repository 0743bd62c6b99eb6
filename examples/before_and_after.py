"""Makes a Flax and an Equinox model compute by jaxbn in one line, and compares losses and step times.

    python examples/before_and_after.py

The model is a small MobileNet (Howard et al. 2017): depthwise convolutions, 1×1 convolutions in groups, batch norms. In
each library one model is trained as it is and another, with the same parameters and batches, after the one line. Their
steps take turns, so that what else the computer does slows down both. The loss is the same but for rounding.

Needs Flax, Equinox and the extra: python -m pip install "jaxbn[benchmarks,examples]"
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from digits import load_digits
from machine import description
from matplotlib.figure import Figure
from tqdm import tqdm

import jaxbn

try:
    import equinox as eqx
    from flax import nnx
except ImportError as error:
    wanted = 'python -m pip install "jaxbn[benchmarks,examples]"'
    raise SystemExit(f"before_and_after: {error.name} is missing; {wanted}") from None

WIDTHS = (32, 64, 128)
BLOCKS, GROUPS, CLASSES = 2, 4, 10
SIDE, BATCH, RATE = 32, 64, 0.1

Step = Callable[[Any, Any], Any]
"""Trains with a batch of images and labels, and returns the loss."""


def layout() -> list[tuple[int, int, int, int, int]]:
    """The input and output channels, the side of the window, the stride and the groups of each layer."""
    layers, into = [(1, WIDTHS[0], 3, 1, 1)], WIDTHS[0]
    for stage, out in enumerate(WIDTHS):
        for block in range(BLOCKS):
            layers += [(into, into, 5, 2 if stage and not block else 1, into), (into, out, 1, 1, GROUPS)]
            into = out
    return layers


# 1. The model in Flax.


class FlaxLayer(nnx.Module):
    """A convolution, a batch norm and a ReLU."""

    def __init__(self, into: int, out: int, side: int, stride: int, groups: int, rngs: nnx.Rngs) -> None:
        window = (side, side)
        self.conv = nnx.Conv(into, out, window, stride, feature_group_count=groups, use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(out, momentum=0.9, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return nnx.relu(self.norm(self.conv(x)))


class FlaxModel(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.layers = nnx.List([FlaxLayer(*sizes, rngs=rngs) for sizes in layout()])
        self.dense = nnx.Linear(WIDTHS[-1], CLASSES, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in self.layers:
            x = layer(x)
        return self.dense(x.mean((1, 2)))


def flax_training(model: FlaxModel) -> Step:
    @nnx.jit
    def step(model: FlaxModel, optimizer: nnx.Optimizer, images: jax.Array, labels: jax.Array) -> jax.Array:
        def loss(model: FlaxModel) -> jax.Array:
            return optax.softmax_cross_entropy_with_integer_labels(model(images), labels).mean()

        value, gradients = nnx.value_and_grad(loss)(model)
        optimizer.update(model, gradients)
        return value

    return partial(step, model, nnx.Optimizer(model, optax.sgd(RATE), wrt=nnx.Param))


def flax_trainings(seed: int) -> tuple[Step, Step]:
    """Before and after."""
    before, after = FlaxModel(nnx.Rngs(seed)), FlaxModel(nnx.Rngs(seed))
    report = jaxbn.nnx.swap(after)  # the one line
    print(f"Flax: {report}")
    return flax_training(before), flax_training(after)


# 2. The model in Equinox.


class EquinoxLayer(eqx.Module):
    conv: eqx.nn.Conv2d
    norm: eqx.nn.BatchNorm

    def __init__(self, into: int, out: int, side: int, stride: int, groups: int, key: jax.Array) -> None:
        self.conv = eqx.nn.Conv2d(into, out, side, stride, "SAME", groups=groups, use_bias=False, key=key)
        self.norm = eqx.nn.BatchNorm(out, "batch", mode="batch")

    def __call__(self, x: jax.Array, state: eqx.nn.State) -> tuple[jax.Array, eqx.nn.State]:
        x, state = self.norm(self.conv(x), state)
        return jax.nn.relu(x), state


class EquinoxModel(eqx.Module):
    layers: list[EquinoxLayer]
    dense: eqx.nn.Linear

    def __init__(self, key: jax.Array) -> None:
        keys = jax.random.split(key, len(layout()) + 1)
        self.layers = [EquinoxLayer(*sizes, key=key) for sizes, key in zip(layout(), keys[1:], strict=True)]
        self.dense = eqx.nn.Linear(WIDTHS[-1], CLASSES, key=keys[0])

    def __call__(self, x: jax.Array, state: eqx.nn.State) -> tuple[jax.Array, eqx.nn.State]:
        for layer in self.layers:
            x, state = layer(x, state)
        return self.dense(x.mean((1, 2))), state


def equinox_training(model: EquinoxModel, state: eqx.nn.State) -> Step:
    carry, optimizer = (model, state), optax.sgd(RATE)

    @eqx.filter_jit
    def step(carry: Any, images: jax.Array, labels: jax.Array) -> tuple[Any, jax.Array]:
        def loss(model: EquinoxModel, state: eqx.nn.State) -> tuple[jax.Array, eqx.nn.State]:
            batched = jax.vmap(model, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
            logits, state = batched(images.transpose(0, 3, 1, 2), state)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), state

        model, state = carry
        (value, state), gradients = eqx.filter_value_and_grad(loss, has_aux=True)(model, state)
        updates, _ = optimizer.update(gradients, optimizer.init(eqx.filter(model, eqx.is_inexact_array)))
        return (eqx.apply_updates(model, updates), state), value

    def step_in_place(images: jax.Array, labels: jax.Array) -> jax.Array:
        nonlocal carry
        carry, value = step(carry, images, labels)
        return value

    return step_in_place


def equinox_trainings(seed: int) -> tuple[Step, Step]:
    """Before and after."""
    before, state = eqx.nn.make_with_state(EquinoxModel)(jax.random.key(seed))
    after, report = jaxbn.equinox.swap(before)  # the one line
    print(f"Equinox: {report}")
    return equinox_training(before, state), equinox_training(after, state)


# 3. Both trained side by side.


class Run(NamedTuple):
    losses: np.ndarray  # (steps, 2): before and after
    seconds: np.ndarray

    @property
    def ratio(self) -> float:
        """How many times as long a step took before, without the first, which is compiled."""
        before, after = np.median(self.seconds[1:], axis=0)
        return float(before / after)


def train(name: str, trainings: tuple[Step, Step], images: np.ndarray, labels: np.ndarray) -> Run:
    """Trains both with the same batches, by turns."""
    losses, seconds = np.empty((2, len(images), 2))
    for place in tqdm(range(len(images)), desc=name, unit="step"):
        for which, step in enumerate(trainings):
            start = time.perf_counter()
            losses[place, which] = step(images[place], labels[place])
            seconds[place, which] = time.perf_counter() - start
    return Run(losses, seconds)


def draw(runs: dict[str, Run], path: Path) -> None:
    figure = Figure(figsize=(12, 4), layout="constrained")
    left, *right = figure.subplots(1, 1 + len(runs))
    for which, (label, color) in enumerate((("before", "0.7"), ("after", "C0"))):
        heights = [1e3 * np.median(run.seconds[1:, which]) for run in runs.values()]
        left.bar(np.arange(len(runs)) + 0.4 * which - 0.2, heights, 0.38, color=color, label=label)
    for place, run in enumerate(runs.values()):
        height = 1e3 * np.median(run.seconds[1:, 1])
        left.annotate(f"÷ {run.ratio:.1f}", (place + 0.2, height), ha="center", va="bottom")
    left.set_xticks(range(len(runs)), list(runs))
    left.set(title="Training step", ylabel="median time (ms)")
    left.legend()
    for axes, (name, run) in zip(right, runs.items(), strict=True):
        steps = range(1, len(run.losses) + 1)
        axes.plot(steps, run.losses[:, 0], color="0.7", linewidth=5, label="before")
        axes.plot(steps, run.losses[:, 1], color="C0", linewidth=1.2, label="after")
        axes.set(title=f"Loss in {name}", xlabel="step", ylabel="cross-entropy of a batch", ylim=(0, None))
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=150)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=40, help="training steps of each model")
    parser.add_argument("--seed", type=int, default=0, help="for the initial parameters and the order of the images")
    parser.add_argument("--output", type=Path, default=Path("runs/before_and_after"), help="folder for the picture")
    options = parser.parse_args(arguments)
    if options.steps < 2 or options.seed < 0:
        parser.error("--steps must be at least 2, --seed at least 0")
    options.output.mkdir(parents=True, exist_ok=True)

    data = load_digits()
    rows = np.random.default_rng(options.seed).integers(0, len(data.x_train), (options.steps, BATCH))
    large = np.asarray(jax.image.resize(data.x_train, (len(data.x_train), SIDE, SIDE, 1), "linear"))
    runs = {
        name: train(name, trainings(options.seed), large[rows], data.y_train[rows])
        for name, trainings in (("Flax", flax_trainings), ("Equinox", equinox_trainings))
    }
    for name, run in runs.items():
        worst = np.abs(run.losses[:, 0] - run.losses[:, 1]).max()
        print(f"{name}: before, a step takes {run.ratio:.1f} times as long; the losses differ by at most {worst:.1e}")
    print(f"on {description('jax', 'flax', 'equinox')}")
    draw(runs, options.output / "before_and_after.png")
    print(f"picture: {options.output / 'before_and_after.png'}")


if __name__ == "__main__":
    main()
