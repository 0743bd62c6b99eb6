"""Makes a Flax and an Equinox model compute with jaxbn in one line, and compares losses and step times.

    python examples/before_and_after.py

The model is a small ConvNeXt (Liu et al. 2022) with batch norms: depthwise convolutions, and 1×1 convolutions in
groups. In each library one model is trained as it is, and a model with the same parameters is trained on the same
batches after the one line. Their steps alternate, so that other work of the computer slows down both. The losses are
the same up to rounding, which training amplifies from step to step.

Needs Flax, Equinox and the extra: python -m pip install "jaxbn[benchmarks,examples]"
"""

import argparse
import time
from collections.abc import Callable, Iterator
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

WIDTHS = (32, 64)
BLOCKS, GROUPS = 2, 4
SIDE, BATCH, RATE = 16, 32, 0.1

Step = Callable[[Any, Any], Any]
"""A function that trains with a batch of images and labels, and returns the loss."""


# 1. The model in Flax.


class FlaxBlock(nnx.Module):
    def __init__(self, width: int, rngs: nnx.Rngs) -> None:
        self.depthwise = nnx.Conv(width, width, (5, 5), feature_group_count=width, rngs=rngs)
        self.norm = nnx.BatchNorm(width, momentum=0.9, rngs=rngs)
        self.expand = nnx.Conv(width, 4 * width, (1, 1), feature_group_count=GROUPS, rngs=rngs)
        self.project = nnx.Conv(4 * width, width, (1, 1), feature_group_count=GROUPS, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x + self.project(nnx.relu(self.expand(self.norm(self.depthwise(x)))))


class FlaxModel(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        layers, into = [], 1
        for out in WIDTHS:
            layers += [nnx.Conv(into, out, (2, 2), strides=2, rngs=rngs), nnx.BatchNorm(out, momentum=0.9, rngs=rngs)]
            layers += [FlaxBlock(out, rngs) for _ in range(BLOCKS)]
            into = out
        self.layers, self.dense = nnx.Sequential(*layers), nnx.Linear(into, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.dense(self.layers(x).mean((1, 2)))


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
    """Returns the training steps before and after the change."""
    before, after = FlaxModel(nnx.Rngs(seed)), FlaxModel(nnx.Rngs(seed))
    report = jaxbn.nnx.swap(after)  # the one line
    print(f"Flax: {report}")
    return flax_training(before), flax_training(after)


# 2. The model in Equinox.


class EquinoxBlock(eqx.nn.StatefulLayer):
    depthwise: eqx.nn.Conv2d
    norm: eqx.nn.BatchNorm
    expand: eqx.nn.Conv2d
    project: eqx.nn.Conv2d

    def __init__(self, width: int, keys: Iterator[jax.Array]) -> None:
        self.depthwise = eqx.nn.Conv2d(width, width, 5, padding="SAME", groups=width, key=next(keys))
        self.norm = eqx.nn.BatchNorm(width, "batch", mode="batch")
        self.expand = eqx.nn.Conv2d(width, 4 * width, 1, groups=GROUPS, key=next(keys))
        self.project = eqx.nn.Conv2d(4 * width, width, 1, groups=GROUPS, key=next(keys))

    def __call__(self, x: jax.Array, state: eqx.nn.State, *, key: Any = None) -> tuple[jax.Array, eqx.nn.State]:
        y, state = self.norm(self.depthwise(x), state)
        return x + self.project(jax.nn.relu(self.expand(y))), state


class EquinoxModel(eqx.Module):
    layers: eqx.nn.Sequential
    dense: eqx.nn.Linear

    def __init__(self, key: jax.Array) -> None:
        keys, layers, into = iter(jax.random.split(key, 100)), [], 1
        for out in WIDTHS:
            layers += [eqx.nn.Conv2d(into, out, 2, stride=2, key=next(keys))]
            layers += [eqx.nn.BatchNorm(out, "batch", mode="batch")]
            layers += [EquinoxBlock(out, keys) for _ in range(BLOCKS)]
            into = out
        self.layers, self.dense = eqx.nn.Sequential(layers), eqx.nn.Linear(into, 10, key=next(keys))

    def __call__(self, x: jax.Array, state: eqx.nn.State) -> tuple[jax.Array, eqx.nn.State]:
        x, state = self.layers(x, state)
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
    """Returns the training steps before and after the change."""
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
        """The median time of a step before the change divided by that after it, without the first, compiling step."""
        before, after = np.median(self.seconds[1:], axis=0)
        return float(before / after)


def train(name: str, trainings: tuple[Step, Step], images: np.ndarray, labels: np.ndarray) -> Run:
    """Trains both with the same batches, in alternating steps."""
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
        height = 1e3 * np.median(run.seconds[1:, 0])
        left.annotate(f"{run.ratio:.1f} times", (place - 0.2, height), ha="center", va="bottom")
    left.set_xticks(range(len(runs)), list(runs))
    left.set(title="Training step", ylabel="median time (ms)")
    left.margins(y=0.25)
    left.legend(loc="upper center", ncols=2)
    for axes, (name, run) in zip(right, runs.items(), strict=True):
        steps = range(1, len(run.losses) + 1)
        axes.plot(steps, run.losses[:, 0], color="0.7", linewidth=5, label="before")
        axes.plot(steps, run.losses[:, 1], color="C0", linewidth=1.2, label="after")
        axes.set(title=f"Loss in {name}", xlabel="step", ylabel="cross-entropy of a batch")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=150)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=80, help="training steps of each model")
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
        differences = np.abs(run.losses[:, 0] - run.losses[:, 1])
        print(f"{name}: before, a step takes {run.ratio:.1f} times as long as after")
        print(
            f"the losses differ by {differences[:10].max():.1e} in the first ten steps, {differences.max():.1e} in all"
        )
    print(f"on {description('jax', 'flax', 'equinox')}")
    draw(runs, options.output / "before_and_after.png")
    print(f"picture: {options.output / 'before_and_after.png'}")


if __name__ == "__main__":
    main()
