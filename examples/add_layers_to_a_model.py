"""Adds layers to trained models without changing their outputs, and trains them further.

    python examples/add_layers_to_a_model.py

Two networks without batch norm, one of plain JAX functions and one of Flax's nnx, learn the digits slowly: their
initial weights, the defaults of PyTorch and Flax, are too small for layers with a ReLU. Then both get batch norms that
are calibrated to change nothing at first. The second network also gets a new layer with a hand-written derivative. The
original and the extended networks are trained for the same number of epochs, at the same learning rate and at ten times
that rate. `fine_tuning.py` has the training loop.

This example also needs Flax: python -m pip install "jaxbn[examples,benchmarks]"
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


# 1. A network of plain functions.


def plain_model(seed: int) -> Model:
    """Draws kernels uniformly from ±1/√inputs, as PyTorch does. Each layer and its ReLU shrink their input to 40 %."""
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
    """Returns the model with a batch norm before every ReLU, calibrated on the inputs of the ReLU."""
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
    for (kernel, bias), (gamma, beta), stats in zip(layers, norms, running, strict=True):
        x, new_stats = apply_batch_norm(x @ kernel + bias, gamma, beta, stats, train)
        x = jax.nn.relu(x)
        new_running.append(new_stats)
    return x @ last_kernel + last_bias, new_running


def apply_batch_norm(
    x: jax.Array, gamma: jax.Array, beta: jax.Array, running: jaxbn.RunningStats, train: bool
) -> tuple[jax.Array, jaxbn.RunningStats]:
    """Returns the output of a batch norm, and its new running statistics."""
    if not train:
        return jaxbn.batch_norm_inference(x, running.mean, running.var, gamma, beta), running
    y, moments = jaxbn.batch_norm(x, gamma, beta)
    return y, jaxbn.update_running_stats(running, moments)


# 2. A new layer with a hand-written derivative: squeeze and excitation (Hu et al. 2018). It multiplies each channel by
# a number between 0 and 2.


def plain_gate(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    return x * (2 * jax.nn.sigmoid(x.mean((1, 2)) @ kernel + bias))[:, None, None, :]


@jax.custom_vjp
def gate(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    return plain_gate(x, kernel, bias)


def gate_fwd(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    squeezed = x.mean((1, 2))
    factor = 2 * jax.nn.sigmoid(squeezed @ kernel + bias)
    return x * factor[:, None, None, :], (x, kernel, squeezed, factor)


def gate_bwd(residuals: tuple[jax.Array, ...], dy: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, kernel, squeezed, factor = residuals
    dlogits = (dy * x).sum((1, 2)) * factor * (1 - factor / 2)
    dsqueezed = dlogits @ kernel.T
    dx = dy * factor[:, None, None, :] + dsqueezed[:, None, None, :] / (x.shape[1] * x.shape[2])
    return dx, squeezed.T @ dlogits, dlogits.sum(0)


gate.defvjp(gate_fwd, gate_bwd)


def check_gate(layer: Any = gate) -> VjpReport:
    """Compares the derivative with autodiff before it is used. Raises an error with a report if it is wrong."""
    keys, shapes = jax.random.split(jax.random.key(0), 3), [(3, 4, 5, 2), (2, 2), (2,)]
    return check_custom_vjp(layer, plain_gate, *map(jax.random.normal, keys, shapes))


# 3. A network of Flax, and both layers as Flax modules.


class Net(nnx.Module):
    """A network with Flax's initial kernels. Each layer and its ReLU shrink their input to 70 %."""

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
        self.use_running_average = False  # train() and eval() of the model set this attribute

    def __call__(self, x: jax.Array) -> jax.Array:
        running, train = self.running.get_value(), not self.use_running_average
        y, running = apply_batch_norm(x, self.gamma[...], self.beta[...], running, train)
        self.running.set_value(running)
        return y


class Gate(nnx.Module):
    def __init__(self, features: int) -> None:
        self.kernel, self.bias = nnx.Param(jnp.zeros((features, features))), nnx.Param(jnp.zeros(features))

    def __call__(self, x: jax.Array) -> jax.Array:
        return gate(x, self.kernel[...], self.bias[...])  # while both are zero, the factor is exactly 1


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
    """Returns the model with two new layers after every convolution. The class `Net` is not changed."""
    net, x = nnx.merge(model.state[0], model.params, model.state[1], copy=True), images
    for index, conv in enumerate(net.blocks):
        x = conv(x)
        net.blocks[index] = nnx.Sequential(conv, BatchNorm(x), Gate(x.shape[-1]))
        x = jax.nn.relu(x)
    return as_model(net)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed and two epochs, to try the program")
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
