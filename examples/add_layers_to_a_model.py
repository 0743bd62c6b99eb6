"""Add layers to models that are trained already, without changing what they compute, and train on.

    python examples/add_layers_to_a_model.py

Two networks without batch norm, of plain JAX functions and of Flax's nnx, learn the digits slowly: their initial
weights, PyTorch's and Flax's usual ones, are too small in front of a ReLU. Then both get batch norms, calibrated to
change nothing, and the second also a layer of our own with a derivative by hand. The original and the extended network
go on learning for equally long, at the same learning rate and at ten times that: `fine_tuning.py` does this.

Needs Flax too: python -m pip install "jaxbn[examples,benchmarks]"
"""

import argparse
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from digits import load_digits
from fine_tuning import Model, compare, draw, print_table

import jaxbn
from jaxbn.testing import VjpReport, check_custom_vjp

try:
    from flax import nnx
except ImportError:
    raise SystemExit('add_layers_to_a_model: Flax is missing; python -m pip install "jaxbn[benchmarks]"') from None

DEPTH = 4


# First, a network of plain functions.


def plain_model(seed: int) -> Model:
    """Kernels uniform to ±1/√inputs, as PyTorch's are: each ReLU layer shrinks its input to 0.4 of it."""
    widths = [64, *DEPTH * [48], 10]
    draw = jax.nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
    keys = jax.random.split(jax.random.key(seed), DEPTH + 1)
    layers = [(draw(key, shape), jnp.zeros(shape[1])) for key, shape in zip(keys, pairwise(widths), strict=True)]
    return Model(plain_apply, layers, ())


def plain_apply(layers: Any, state: Any, images: jax.Array, train: bool) -> tuple[jax.Array, Any]:
    x = images.reshape(len(images), -1)
    for kernel, bias in layers[:-1]:
        x = jax.nn.relu(x @ kernel + bias)
    kernel, bias = layers[-1]
    return x @ kernel + bias, state


def plain_extended(model: Model, images: jax.Array) -> Model:
    """With a batch norm in front of every ReLU, calibrated on what comes there."""
    norms, x = [], images.reshape(len(images), -1)
    for kernel, bias in model.params[:-1]:
        x = x @ kernel + bias
        norms.append(jaxbn.calibrated_batch_norm(x))
        x = jax.nn.relu(x)
    params = model.params, [(norm.gamma, norm.beta) for norm in norms]
    return Model(plain_extended_apply, params, [norm.running for norm in norms])


def plain_extended_apply(params: Any, running: Any, images: jax.Array, train: bool) -> tuple[jax.Array, Any]:
    (*layers, (last_kernel, last_bias)), norms = params
    x, new_running = images.reshape(len(images), -1), []
    for (kernel, bias), (gamma, beta), before in zip(layers, norms, running, strict=True):
        x, after = normalised(x @ kernel + bias, gamma, beta, before, train)
        x = jax.nn.relu(x)
        new_running.append(after)
    return x @ last_kernel + last_bias, new_running


def normalised(x: jax.Array, gamma: jax.Array, beta: jax.Array, running: jaxbn.RunningStats, train: bool) -> Any:
    """A batch norm's output, and its running statistics afterwards."""
    if not train:
        return jaxbn.batch_norm_inference(x, running.mean, running.var, gamma, beta), running
    y, moments = jaxbn.batch_norm(x, gamma, beta)
    return y, jaxbn.update_running_stats(running, moments)


# Second, a layer of our own: squeeze and excitation (Hu et al. 2018), each channel times a number from 0 to 2.


def plain_gate(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    return x * (2 * jax.nn.sigmoid(x.mean((1, 2)) @ kernel + bias))[:, None, None, :]


@jax.custom_vjp
def gate(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    return plain_gate(x, kernel, bias)


def gate_fwd(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    squeezed = x.mean((1, 2))
    factor = 2 * jax.nn.sigmoid(squeezed @ kernel + bias)
    return x * factor[:, None, None, :], (x, kernel, squeezed, factor)


def gate_bwd(saved: tuple[jax.Array, ...], dy: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, kernel, squeezed, factor = saved
    dlogits = (dy * x).sum((1, 2)) * factor * (1 - factor / 2)
    dsqueezed = dlogits @ kernel.T
    dx = dy * factor[:, None, None, :] + dsqueezed[:, None, None, :] / (x.shape[1] * x.shape[2])
    return dx, squeezed.T @ dlogits, dlogits.sum(0)


gate.defvjp(gate_fwd, gate_bwd)


def check_gate(layer: Any = gate) -> VjpReport:
    """Compares the derivative with autodiff's; raises, and says what is wrong, before anything trains with it."""
    keys, shapes = jax.random.split(jax.random.key(0), 3), [(3, 4, 5, 2), (2, 2), (2,)]
    return check_custom_vjp(layer, plain_gate, *map(jax.random.normal, keys, shapes))


# Third, a network of Flax, and both layers as modules of Flax.


class Net(nnx.Module):
    """Kernels as Flax draws them: each ReLU layer shrinks its input to 0.7 of it."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        conv = partial(nnx.Conv, kernel_size=(3, 3), conv_general_dilated=jaxbn.conv_general_dilated, rngs=rngs)
        self.blocks = nnx.List([conv(12 if index else 1, 12) for index in range(DEPTH)])
        self.head = nnx.Linear(12, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        for block in self.blocks:
            x = jax.nn.relu(block(x))
        return self.head(x.mean((1, 2)))


class BatchNorm(nnx.Module):
    def __init__(self, calibration: jax.Array) -> None:
        gamma, beta, running = jaxbn.calibrated_batch_norm(calibration)
        self.gamma, self.beta, self.running = nnx.Param(gamma), nnx.Param(beta), nnx.BatchStat(running)
        self.use_running_average = False  # the model's train() and eval() set it

    def __call__(self, x: jax.Array) -> jax.Array:
        running, train = self.running.get_value(), not self.use_running_average
        y, running = normalised(x, self.gamma[...], self.beta[...], running, train)
        self.running.set_value(running)
        return y


class Gate(nnx.Module):
    def __init__(self, features: int) -> None:
        self.kernel, self.bias = nnx.Param(jnp.zeros((features, features))), nnx.Param(jnp.zeros(features))

    def __call__(self, x: jax.Array) -> jax.Array:
        return gate(x, self.kernel[...], self.bias[...])  # times exactly 1 as long as both are zero


def flax_model(seed: int) -> Model:
    return as_model(Net(nnx.Rngs(seed)))


def as_model(net: Net) -> Model:
    definition, params, rest = nnx.split(net, nnx.Param, ...)
    return Model(flax_apply, params, (definition, rest))


def flax_apply(params: Any, state: Any, images: jax.Array, train: bool) -> tuple[jax.Array, Any]:
    definition, rest = state
    net = nnx.merge(definition, params, rest, copy=True)
    net.train() if train else net.eval()
    return net(images), (definition, nnx.state(net, nnx.Not(nnx.Param)))


def flax_extended(model: Model, images: jax.Array) -> Model:
    """Every convolution becomes one with two layers behind it; the class `Net` stays as it is."""
    net, x = nnx.merge(model.state[0], model.params, model.state[1], copy=True), images
    for index, conv in enumerate(net.blocks):
        x = conv(x)
        net.blocks[index] = nnx.Sequential(conv, BatchNorm(x), Gate(x.shape[-1]))
        x = jax.nn.relu(x)
    return as_model(net)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed and two epochs, to see that it runs")
    parser.add_argument("--output", type=Path, default=Path("runs/add_layers"), help="folder for the picture")
    options = parser.parse_args(arguments)
    seeds, epochs = (1, 2) if options.quick else (5, 10)

    print(str(check_gate()).splitlines()[0])
    networks = {"plain functions": (plain_model, plain_extended), "Flax": (flax_model, flax_extended)}
    data = load_digits()
    curves = {name: compare(name, *pair, data, seeds, epochs) for name, pair in networks.items()}
    print_table(curves, epochs)
    options.output.mkdir(parents=True, exist_ok=True)
    draw(curves, epochs, options.output / "learning_curves.png")
    print(f"learning curves: {options.output / 'learning_curves.png'}")


if __name__ == "__main__":
    main()
