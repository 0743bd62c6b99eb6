"""Tests whether batch norm allows larger learning rates (D11), and a bound on β even larger ones (D12).

    python examples/why_batch_norm.py
    python examples/why_batch_norm.py --quick

One compiled program trains 930 small networks on handwritten digits at once, with plain gradient descent (D18): 31
learning rates from 0.001 to 30, six seeds, and five variants. The variants are no batch norm, batch norm, and batch
norm with three bounds on β, which `jaxbn.optim.constrain_beta` keeps at −k·σ or above. The program draws pictures of
the results and prints answers to the deck's questions. With ``--quick`` it trains a smaller network for a few steps,
which only shows that the program works.
Needs the extra: python -m pip install "jaxbn[examples]"
"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from digits import Digits, load_digits
from jaxtyping import Array, Float, Int
from tqdm import tqdm
from why_batch_norm_results import Record, Sweep, answer, draw_distributions, draw_learning_rates, draw_zeros

import jaxbn
from jaxbn import cnn
from jaxbn.optim import constrain_beta

VARIANTS = ("no batch norm", "batch norm", "batch norm, k = 2", "batch norm, k = 1", "batch norm, k = 0.5")
BOUNDS = (np.inf, 2.0, 1.0, 0.5)  # k for all variants but the first; an infinite k means no bound
CONFIG = cnn.CNNConfig(features=(8, 16, 32))
TRIAL = cnn.CNNConfig(features=(4, 8))  # for --quick, which takes most of its time to compile
BATCH = 64
CHUNK = 20  # steps between two evaluations on the test images
WATCHED = 1  # the layer whose values are recorded as histograms
EDGES = np.sinh(np.linspace(-8, 8, 65))  # of the histograms' bins: equally spaced near zero, wider for large values


class Runs(NamedTuple):
    """The settings that differ between runs."""

    learning_rate: Float[Array, " runs"]
    k: Float[Array, " runs"]
    seed: Int[Array, " runs"]


class Layer(NamedTuple):
    """The values that a layer computes for one batch."""

    convolved: Float[Array, "batch height width channels"]
    shifted: Float[Array, "batch height width channels"]  # the ReLU's input: after batch norm, or after the bias
    rectified: Float[Array, "batch height width channels"]
    moments: jaxbn.Moments | None


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="try the program with a smaller network, without an answer"
    )
    parser.add_argument("--output", type=Path, default=Path("runs/why_batch_norm"), help="folder for the pictures")
    options = parser.parse_args(arguments)
    number, seeds, steps, config = (4, 2, 20, TRIAL) if options.quick else (31, 6, 240, CONFIG)

    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"argument --output: {str(options.output)!r}: {error.strerror}")
    results = sweep(np.geomspace(1e-3, 30, number, dtype=np.float32), seeds, steps, config)
    for draw in (draw_learning_rates, draw_distributions, draw_zeros):
        draw(results, options.output / f"{draw.__name__.removeprefix('draw_')}.png")
    trial = f"This was a trial of the program: runs of {steps} steps say nothing about batch norm. Leave out --quick."
    print(f"pictures: {options.output}", trial if options.quick else answer(results), sep="\n\n")


def sweep(rates: Float[np.ndarray, " rates"], seeds: int, steps: int, config: cnn.CNNConfig) -> Sweep:
    """Trains a network for each variant, learning rate and seed."""
    dataset = jax.tree.map(jnp.asarray, load_digits())
    plain, normalised = make_runs(rates, seeds, ks=(np.inf,)), make_runs(rates, seeds, ks=BOUNDS)
    groups = plain, normalised
    networks = without_batch_norm(init(plain.seed, config)), init(normalised.seed, config)
    chunks = []
    with tqdm(total=steps, unit="step", bar_format="{desc} |{bar:20}| {n_fmt}/{total_fmt} {elapsed}{postfix}") as bar:
        bar.set_description(f"{sum(len(runs.seed) for runs in groups)} runs at once")
        for start in range(0, steps, CHUNK):
            networks, records = train_all(dataset, start, networks, groups)
            chunks.append(jax.tree.map(lambda *parts: np.concatenate(parts), *jax.device_get(records)))
            bar.set_postfix_str(f"best accuracy {np.max(chunks[-1].test_accuracy):.1%}", refresh=False)
            bar.update(CHUNK)
    axes = len(VARIANTS), len(rates), seeds
    chunks = [jax.tree.map(lambda leaf: leaf.reshape(*axes, *leaf.shape[1:]), chunk) for chunk in chunks]
    record = jax.tree.map(lambda *parts: np.concatenate(parts, len(axes)), *chunks)
    return Sweep(VARIANTS, rates, EDGES, record)


def make_runs(rates: Float[np.ndarray, " rates"], seeds: int, ks: Sequence[float]) -> Runs:
    """Returns all combinations. The seed varies fastest."""
    k, rate, seed = (axis.ravel() for axis in np.meshgrid(ks, rates, np.arange(seeds), indexing="ij"))
    return Runs(jnp.asarray(rate, jnp.float32), jnp.asarray(k, jnp.float32), jnp.asarray(seed, jnp.int32))


def init(seeds: Int[Array, " runs"], config: cnn.CNNConfig) -> cnn.Params:
    """Draws the initial parameters of each run, which depend only on its seed."""
    drawn = [cnn.init(jax.random.key(seed), config)[0] for seed in range(int(seeds.max()) + 1)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves)[seeds], *drawn)


def without_batch_norm(params: cnn.Params) -> cnn.Params:
    """Removes γ, so that β is used as a bias."""
    return params._replace(blocks=tuple(block._replace(gamma=None) for block in params.blocks))


@partial(jax.jit, donate_argnums=2)
def train_all(
    dataset: Digits, start: Int[Array, ""], networks: tuple[cnn.Params, ...], groups: tuple[Runs, ...]
) -> tuple[tuple[cnn.Params, ...], tuple[Record, ...]]:
    """Trains all runs for the next steps in one compiled program. The networks in a group have the same structure."""
    results = [
        jax.vmap(partial(train, dataset, start))(params, runs) for params, runs in zip(networks, groups, strict=True)
    ]
    return tuple(params for params, _ in results), tuple(record for _, record in results)


def train(dataset: Digits, start: Int[Array, ""], params: cnn.Params, run: Runs) -> tuple[cnn.Params, Record]:
    """Trains one run for the next steps."""
    optimizer = optax.sgd(run.learning_rate)
    if params.blocks[0].gamma is not None:
        optimizer = optax.chain(optimizer, constrain_beta(run.k))

    def step(params: Any, number: Array) -> tuple[Any, tuple[Array, ...]]:
        key = jax.random.fold_in(jax.random.key(run.seed), number)
        rows = jax.random.randint(key, (BATCH,), 0, len(dataset.x_train))
        gradients, recorded = jax.grad(loss, has_aux=True)(params, dataset.x_train[rows], dataset.y_train[rows])
        updates, _ = optimizer.update(gradients, optimizer.init(params), params)
        return optax.apply_updates(params, updates), recorded

    params, recorded = jax.lax.scan(step, params, start + jnp.arange(CHUNK))
    test: tuple[Any, ...] = evaluate(dataset, params)
    return params, Record(*recorded, *test)


def loss(params: cnn.Params, images: Array, labels: Array) -> tuple[Array, tuple[Array, ...]]:
    """Returns the mean cross-entropy of a batch, and the values that `Record` has for each step."""
    logits, layers = apply(params, images, [None] * len(params.blocks))
    value = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))
    zeros = jnp.stack([jnp.mean(layer.rectified == 0) for layer in layers])
    return value, (value, zeros, histogram(layers[WATCHED].convolved), histogram(layers[WATCHED].shifted))


def evaluate(dataset: Digits, params: cnn.Params) -> tuple[Any, ...]:
    """Returns the values that `Record` has for each chunk.

    The test images are normalised with the statistics of the same number of training images under the same parameters.
    Running statistics would be outdated, especially at large learning rates.
    """
    x_train, x_test = (jnp.asarray(x) for x in (dataset.x_train, dataset.x_test))
    _, layers = apply(params, x_train[: len(x_test)], [None] * len(params.blocks))
    logits, layers = apply(params, x_test, [layer.moments for layer in layers])
    accuracy = jnp.mean(jnp.argmax(logits, -1) == dataset.y_test)
    dead = jnp.stack([jnp.mean(jnp.all(layer.rectified == 0, (0, 1, 2))) for layer in layers])
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(params)]))
    return tuple(jnp.expand_dims(value, 0) for value in (accuracy, dead, finite))


def apply(
    params: cnn.Params, images: Array, moments: Sequence[jaxbn.Moments | None]
) -> tuple[Float[Array, "batch classes"], list[Layer]]:
    """Returns the logits of the network of `jaxbn.cnn`, and the values of its layers.

    A layer is normalised with the given moments, or with those of the batch if they are None. Without γ, β is a bias.
    """
    x, layers = images, []
    for index, (block, given) in enumerate(zip(params.blocks, moments, strict=True)):
        convolved, used = jaxbn.conv(x, block.kernel, stride=2 if index else 1, padding="SAME"), given
        if block.gamma is None:
            shifted = convolved + block.beta
        elif given is None:
            shifted, used = jaxbn.batch_norm(convolved, block.gamma, block.beta)
        else:
            shifted = jaxbn.batch_norm_inference(convolved, given.mean, given.var, block.gamma, block.beta)
        x = jax.nn.relu(shifted)
        layers.append(Layer(convolved, shifted, x, used))
    return jnp.mean(x, (1, 2)) @ params.dense.kernel + params.dense.bias, layers


def histogram(values: Array) -> Float[Array, " bins"]:
    """The fraction of the values in each bin. The first and last bins also count the values beyond them."""
    sample = values[:8].reshape(-1, 1)  # eight images are enough
    return jnp.diff(jnp.mean(sample < jnp.asarray(EDGES[1:-1], sample.dtype), 0), prepend=0, append=1)


if __name__ == "__main__":
    main()
