"""Counts the activations that the basic blocks of a residual network keep for the backward pass, in several libraries.

    python -m benchmarks.activations

A block has two 3×3 convolutions. In the post-activation form it is ``act(x + norm(conv(act(norm(conv(x))))))``, in the
pre-activation form ``x + conv(act(norm(conv(act(norm(x))))))``. For a chain of blocks, everything that is computed and
kept, but not the parameters and the images, is divided by the size of one activation and the number of convolutions.
``reference`` is plain JAX. The count is of the program that JAX traces; XLA may compute some arrays again instead of
keeping them.
"""

import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from flax import nnx
from tqdm import tqdm

import jaxbn
from benchmarks import pytorch, report
from benchmarks.resnet import Layer
from jaxbn import reference
from jaxbn.testing import saved_bytes

BLOCKS, SHAPE = 8, (8, 16, 16, 32)
CONVOLUTIONS, CHANNELS = 2 * BLOCKS, SHAPE[-1]
CHANNELS_FIRST = (SHAPE[0], CHANNELS, *SHAPE[1:-1])


class Form(NamedTuple):
    name: str
    activation: str
    block: Callable[..., Any]  # a function of x, the activation, and two pairs of a convolution and a batch norm
    fused: Callable[..., Any]  # the same of x, the activation, and the parameters of the pairs


def post_activation(x: Any, activation: Any, conv_1: Any, norm_1: Any, conv_2: Any, norm_2: Any) -> Any:
    return activation(x + norm_2(conv_2(activation(norm_1(conv_1(x))))))


def pre_activation(x: Any, activation: Any, conv_1: Any, norm_1: Any, conv_2: Any, norm_2: Any) -> Any:
    return x + conv_2(activation(norm_2(conv_1(activation(norm_1(x))))))


def fused_post_activation(x: jax.Array, activation: Any, first: Layer, second: Layer) -> jax.Array:
    y = jaxbn.conv(x, first.kernel, padding="SAME")
    y, _ = jaxbn.batch_norm_act_conv(y, first.gamma, first.beta, activation, second.kernel, padding="SAME")
    y, _ = jaxbn.batch_norm_act(y, second.gamma, second.beta, activation, residual=x)
    return y


def fused_pre_activation(x: jax.Array, activation: Any, first: Layer, second: Layer) -> jax.Array:
    y = x
    for layer in (first, second):
        y, _ = jaxbn.batch_norm_act_conv(y, layer.gamma, layer.beta, activation, layer.kernel, padding="SAME")
    return x + y


FORMS = (
    Form("post-activation, ReLU", "relu", post_activation, fused_post_activation),
    Form("post-activation, SiLU", "silu", post_activation, fused_post_activation),
    Form("pre-activation, ReLU", "relu", pre_activation, fused_pre_activation),
)


def _chain(block: Callable[..., Any], size: int, activation: Any, layers: Iterable[Any], x: Any) -> Any:
    """The mean square of the last block's output; a block takes ``size`` of the layers."""
    for members in zip(*[iter(layers)] * size, strict=True):
        x = block(x, activation, *members)
    return (x * x).mean()


def _kept(loss: Callable[..., Any], parameters: Any, shape: tuple[int, ...] = SHAPE) -> float:
    return _per_convolution(saved_bytes(loss, parameters, jax.ShapeDtypeStruct(shape, jnp.float32)).added)


def _per_convolution(kept: int) -> float:
    return kept / (4 * prod(SHAPE)) / CONVOLUTIONS


def _parameters() -> list[Layer]:
    kernel, vector = jnp.ones((3, 3, CHANNELS, CHANNELS), jnp.float32), jnp.ones(CHANNELS, jnp.float32)
    return [Layer(kernel, vector, vector)] * CONVOLUTIONS


def _jaxbn(form: Form) -> float:
    return _kept(partial(_chain, form.fused, 2, getattr(jax.nn, form.activation)), _parameters())


def _reference(form: Form) -> float:
    def loss(parameters: Any, x: Any) -> Any:
        layers = []
        for kernel, gamma, beta in parameters:
            layers.append(partial(reference.conv, kernel=kernel, padding="SAME"))
            layers.append(lambda x, gamma=gamma, beta=beta: reference.batch_norm(x, gamma, beta)[0])
        return _chain(form.block, 4, getattr(jax.nn, form.activation), layers, x)

    return _kept(loss, _parameters())


def _flax(form: Form) -> float:
    rngs, layers = nnx.Rngs(0), []
    for _ in range(CONVOLUTIONS):
        layers += [nnx.Conv(CHANNELS, CHANNELS, (3, 3), use_bias=False, rngs=rngs), nnx.BatchNorm(CHANNELS, rngs=rngs)]
    definition, params, rest = nnx.split(nnx.List(layers), nnx.Param, ...)

    def loss(params: Any, x: Any) -> Any:
        layers = nnx.merge(definition, params, rest, copy=True)
        return _chain(form.block, 4, getattr(nnx, form.activation), layers, x)

    return _kept(loss, params)


def _equinox(form: Form) -> float:
    def make() -> list[Any]:
        conv = partial(eqx.nn.Conv2d, CHANNELS, CHANNELS, 3, 1, "SAME", use_bias=False, key=jax.random.key(0))
        norm = partial(eqx.nn.BatchNorm, CHANNELS, "batch", mode="batch")
        return [layer() for _ in range(CONVOLUTIONS) for layer in (conv, norm)]

    layers, state = eqx.nn.make_with_state(make)()
    params, static = eqx.partition(layers, eqx.is_inexact_array)

    def loss(params: Any, x: Any) -> Any:
        def called(layer: Any) -> Callable[[Any], Any]:
            if isinstance(layer, eqx.nn.Conv2d):
                return jax.vmap(layer)
            norm = jax.vmap(layer, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
            return lambda x: norm(x, state)[0]

        layers = map(called, eqx.combine(params, static))
        return _chain(form.block, 4, getattr(jax.nn, form.activation), layers, x)

    return _kept(loss, params, CHANNELS_FIRST)


def _torch(torch: pytorch.Process, form: Form) -> float:
    order = "pre-activation" if form.block is pre_activation else "post-activation"
    return _per_convolution(torch.call("kept_bytes", order, form.activation, BLOCKS, SHAPE))


def main() -> None:
    libraries = {"jaxbn": _jaxbn, "reference": _reference, "Flax": _flax, "Equinox": _equinox}
    torch = pytorch.process()
    libraries |= {"PyTorch": partial(_torch, torch)} if torch else {}
    results = {
        form.name: {name: round(count(form), 3) for name, count in libraries.items()}
        for form in tqdm(FORMS, unit="form")
    }
    print(f"{'activations per convolution':28}" + "".join(f"{name:>11}" for name in libraries))
    for name, counts in results.items():
        print(f"{name:28}" + "".join(f"{count:11.2f}" for count in counts.values()))
    document = {
        "command": "python -m benchmarks.activations",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": report.versions(),
        "blocks": BLOCKS,
        "shape": SHAPE,
        "activations_per_convolution": results,
    }
    path = Path("benchmarks/results/activations.json")
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"written: {path}")


if __name__ == "__main__":
    main()
