"""Trains a small convolutional network on handwritten digits, in one file that can be read and copied.

    python examples/train_cnn.py
    python examples/train_cnn.py --ensemble 5 --epochs 10

The digits are scikit-learn's 1,797 greyscale images of 8×8. The gradients of convolution and batch norm come from the
hand-written rules of jaxbn; the rest is JAX and Optax. Needs the extra: python -m pip install "jaxbn[examples]"
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.metrics import confusion_matrix
from sklearn.model_selection import train_test_split
from tqdm import tqdm

import jaxbn

FEATURES = (32, 64, 128)  # output channels of each block; every block but the first has stride 2
BATCH = 32


def init(key: jax.Array) -> tuple[Any, Any]:
    """Draws the parameters of a network, and creates its running statistics."""
    *keys, dense_key = jax.random.split(key, len(FEATURES) + 1)
    draw = jax.nn.initializers.he_normal()
    blocks = [
        {"kernel": draw(key, (3, 3, width_in, width)), "gamma": jnp.ones(width), "beta": jnp.zeros(width)}
        for key, width_in, width in zip(keys, (1, *FEATURES), FEATURES, strict=False)
    ]
    dense = {"kernel": draw(dense_key, (FEATURES[-1], 10)), "bias": jnp.zeros(10)}
    return {"blocks": blocks, "dense": dense}, [jaxbn.init_running_stats(width) for width in FEATURES]


def apply(params: Any, running: Any, images: jax.Array, train: bool) -> tuple[jax.Array, Any]:
    """Computes the logits of a batch of images, and the new running statistics."""
    x, new_running = images, []
    for index, (block, stats) in enumerate(zip(params["blocks"], running, strict=True)):
        x = jaxbn.conv(x, block["kernel"], stride=2 if index else 1, padding="SAME")
        if train:
            x, moments = jaxbn.batch_norm_relu(x, block["gamma"], block["beta"])
            stats = jaxbn.update_running_stats(stats, moments)
        else:
            x = jax.nn.relu(jaxbn.batch_norm_inference(x, stats.mean, stats.var, block["gamma"], block["beta"]))
        new_running.append(stats)
    return x.mean((1, 2)) @ params["dense"]["kernel"] + params["dense"]["bias"], new_running


def loss(params: Any, running: Any, images: jax.Array, labels: jax.Array, train: bool = True) -> tuple[jax.Array, Any]:
    """Returns the mean cross-entropy, and the running statistics, the logits and an array of loss and accuracy."""
    logits, running = apply(params, running, images, train)
    value = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    return value, (running, logits, jnp.stack([value, jnp.mean(logits.argmax(-1) == labels)]))


def train(data: Any, epochs: int, seeds: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Trains one network for each seed, all of them at once.

    Returns the logits of the test images, of shape (networks, images, 10), and the metrics, of shape
    (epochs, 2, networks, 2). Their second axis is training and testing, their last is loss and accuracy.
    """
    x_train, x_test, y_train, y_test = data
    steps = len(x_train) // BATCH
    optimizer = optax.adamw(optax.warmup_cosine_decay_schedule(0.0, 0.01, epochs * steps // 10, epochs * steps))

    @jax.jit
    @jax.vmap  # over the networks, which get different batches
    def step(network: Any, images: jax.Array, labels: jax.Array) -> tuple[Any, jax.Array]:
        params, running, state = network
        gradients, (running, _, metrics) = jax.grad(loss, has_aux=True)(params, running, images, labels)
        updates, state = optimizer.update(gradients, state, params)
        return (optax.apply_updates(params, updates), running, state), metrics

    @jax.jit
    @jax.vmap
    def test(params: Any, running: Any) -> tuple[jax.Array, jax.Array]:
        _, (_, logits, metrics) = loss(params, running, x_test, y_test, train=False)
        return logits, metrics

    params, running = jax.jit(jax.vmap(init))(jnp.stack([jax.random.key(seed) for seed in seeds]))
    network = params, running, jax.vmap(optimizer.init)(params)
    generators, logits, history = [np.random.default_rng(seed) for seed in seeds], np.empty(0), []
    with tqdm(total=epochs * steps, bar_format="{desc} |{bar:20}| {n_fmt}/{total_fmt} {elapsed}{postfix}") as bar:
        for epoch in range(1, epochs + 1):
            bar.set_description_str(f"epoch {epoch}/{epochs}")
            order, seen = np.stack([generator.permutation(len(x_train)) for generator in generators]), []
            for rows in np.split(order[:, : steps * BATCH], steps, axis=1):
                network, metrics = step(network, x_train[rows], y_train[rows])
                seen.append(metrics)
                bar.update()
            logits, metrics = test(*network[:2])
            history.append([np.mean(seen, axis=0), metrics])
            (train_loss, train_accuracy), (_, test_accuracy) = np.mean(history[-1], axis=1)
            bar.set_postfix_str(f"loss {train_loss:.4f}, accuracy {train_accuracy:.1%}, test {test_accuracy:.1%}")
    return np.asarray(logits), np.array(history)


def draw_learning_curves(history: np.ndarray, path: Path) -> None:
    """Draws loss and accuracy over the epochs: the mean over the networks, and a thin line for each network."""
    figure, epochs = Figure(figsize=(10, 4), layout="constrained"), range(1, len(history) + 1)
    for metric, (axes, name) in enumerate(zip(figure.subplots(1, 2), ("cross-entropy", "accuracy"), strict=True)):
        for part, (color, label) in enumerate((("C0", "training, during the epoch"), ("C1", "test, after the epoch"))):
            curves = history[:, part, :, metric]
            axes.plot(epochs, curves, color=color, linewidth=0.6, alpha=0.5)
            axes.plot(epochs, curves.mean(1), color=color, marker="o", markersize=3, label=label)
        axes.set(xlabel="epoch", ylabel=name, yscale="log" if metric == 0 else "linear")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=150)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20, help="passes through the training images")
    parser.add_argument("--seed", type=int, default=0, help="for the initial parameters and the order of the images")
    parser.add_argument("--ensemble", type=int, default=1, help="networks to train at once, from seeds SEED, SEED+1, …")
    parser.add_argument("--output", type=Path, default=Path("runs/train_cnn"), help="folder for the learning curves")
    options = parser.parse_args(arguments)
    if options.epochs < 1 or options.ensemble < 1 or options.seed < 0:
        parser.error("--epochs and --ensemble must be at least 1, --seed at least 0")
    options.output.mkdir(parents=True, exist_ok=True)

    pixels, labels = load_digits(return_X_y=True)
    images = np.float32(pixels / 16).reshape(-1, 8, 8, 1)
    data = train_test_split(images, np.int32(labels), test_size=360, random_state=0, stratify=labels)
    seeds, truth = range(options.seed, options.seed + options.ensemble), data[3]
    logits, history = train(data, options.epochs, seeds)

    if options.ensemble > 1:
        for seed, answers in zip(seeds, logits.argmax(-1), strict=True):
            print(f"test accuracy of seed {seed}: {np.mean(answers == truth):.2%}")
    answers = jax.nn.softmax(logits).mean(0).argmax(-1)  # from the mean probabilities of the networks
    print(f"test accuracy: {np.mean(answers == truth):.2%}")
    print("confusion matrix, a row for each true digit, a column for each answer:")
    print(confusion_matrix(truth, answers))
    draw_learning_curves(history, options.output / "learning_curves.png")
    print(f"learning curves: {options.output / 'learning_curves.png'}")


if __name__ == "__main__":
    main()
