"""Converts a PyTorch ResNet-18 to JAX, folds, exports and trains it there, and converts it back.

    python examples/from_pytorch.py

The network has torchvision's layer names. It is first trained for a few steps in PyTorch, on scikit-learn's digits
scaled up to 32×32 pixels. Its logits, gradients and running statistics are compared with those of the same network in
JAX, in float32. Then PyTorch and JAX continue with the same batches, and a new PyTorch model loads JAX's state. This
file can be copied; `from_pytorch_results.py` has the training loops, the comparison and the picture.

Needs PyTorch and the extra: python -m pip install torch "jaxbn[examples]"
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxbn
from jaxbn.torch import batch_norm_from_torch, batch_norm_to_torch, conv_from_torch, conv_to_torch

try:
    import torch  # pyright: ignore[reportMissingImports]
except ImportError:
    raise SystemExit('from_pytorch: PyTorch is missing; python -m pip install torch "jaxbn[examples]"') from None

import from_pytorch_results as results

WIDTHS = (64, 128, 256, 512)


# 1. The network in PyTorch.


class Block(torch.nn.Module):
    def __init__(self, into: int, out: int, stride: int) -> None:
        super().__init__()
        nn, self.relu, self.downsample = torch.nn, torch.nn.ReLU(), None
        self.conv1, self.bn1 = nn.Conv2d(into, out, 3, stride, padding=1, bias=False), nn.BatchNorm2d(out)
        self.conv2, self.bn2 = nn.Conv2d(out, out, 3, padding=1, bias=False), nn.BatchNorm2d(out)
        if stride > 1 or into != out:
            self.downsample = nn.Sequential(nn.Conv2d(into, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Any) -> Any:
        skip = x if self.downsample is None else self.downsample(x)
        return self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))) + skip)


def stage(into: int, out: int, stride: int) -> Any:
    return torch.nn.Sequential(Block(into, out, stride), Block(out, out, 1))


class ResNet18(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        nn, (a, b, c, d) = torch.nn, WIDTHS
        self.conv1, self.bn1 = nn.Conv2d(3, a, 7, 2, padding=3, bias=False), nn.BatchNorm2d(a)
        self.relu, self.maxpool = nn.ReLU(), nn.MaxPool2d(3, 2, padding=1)
        self.layer1, self.layer2 = stage(a, a, 1), stage(a, b, 2)
        self.layer3, self.layer4 = stage(b, c, 2), stage(c, d, 2)
        self.fc = nn.Linear(d, 10)

    def forward(self, x: Any) -> Any:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.fc(self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean((2, 3)))


# 2. The parameters in JAX and back: a pair of arrays for each layer, with PyTorch's name of the layer.


def from_torch(state: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the parameters and running statistics of a ``state_dict``, which may also be read from a file."""
    params, running = {}, {}
    for layer in dict.fromkeys(name.rpartition(".")[0] for name in state):
        part = {name.rpartition(".")[2]: value for name, value in state.items() if name.startswith(f"{layer}.")}
        if part["weight"].ndim == 4:
            params[layer] = conv_from_torch(part)
        elif part["weight"].ndim == 1:
            gamma, beta, running[layer] = batch_norm_from_torch(part)
            params[layer] = gamma, beta
        else:
            params[layer] = jnp.asarray(np.asarray(part["weight"]).T), jnp.asarray(np.asarray(part["bias"]))
    return params, running


def to_torch(params: Any, running: Any) -> dict[str, Any]:
    """Returns the ``state_dict`` of these parameters and statistics."""
    state = {}
    for layer, (first, second) in params.items():
        if layer in running:
            part = batch_norm_to_torch(first, second, running[layer])
        elif first.ndim == 4:
            part = conv_to_torch(first, second)
        else:
            part = {"weight": torch.from_numpy(np.array(first.T)), "bias": torch.from_numpy(np.array(second))}
        state |= {f"{layer}.{key}": value for key, value in part.items()}
    return state


# 3. The network in JAX.


def conv_of(norm: str) -> str:
    """The name of the convolution before a batch norm."""
    return norm.replace("bn", "conv").replace("downsample.1", "downsample.0")


def apply(params: Any, running: Any, images: jax.Array, train: bool = False) -> tuple[jax.Array, Any]:
    """Returns logits, new running statistics and the output of each ReLU. Folded parameters have no batch norms."""
    new_running, outputs = dict(running), []

    def layer(x: jax.Array, norm: str, stride: int = 1, act: Any = jax.nn.relu, residual: Any = None) -> jax.Array:
        kernel, bias = params[conv_of(norm)]
        # PyTorch pads both sides equally. With a stride of 2, "SAME" would pad less at the start.
        x = jaxbn.conv(x, kernel, bias, stride=stride, padding=kernel.shape[0] // 2)
        gamma, beta = params.get(norm, (None, None))
        if gamma is None:  # folded
            x = x if residual is None else x + residual
            x = x if act is None else act(x)
        elif train:
            x, moments = jaxbn.batch_norm_act(x, gamma, beta, act, residual=residual)
            new_running[norm] = jaxbn.update_running_stats(running[norm], moments)
        else:
            mean, var, _ = running[norm]
            x = jaxbn.batch_norm_act_inference(x, mean, var, gamma, beta, act, residual=residual)
        outputs.extend([] if act is None else [x])
        return x

    x = layer(images, "bn1", 2)
    x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (1, 1), (0, 0)))
    for stage in range(1, len(WIDTHS) + 1):
        for block in (0, 1):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            has_shortcut = f"{name}.downsample.0" in params
            skip = layer(x, f"{name}.downsample.1", stride, None) if has_shortcut else x
            x = layer(layer(x, f"{name}.bn1", stride), f"{name}.bn2", residual=skip)
    kernel, bias = params["fc"]
    return x.mean((1, 2)) @ kernel + bias, (new_running, outputs)


def loss(params: Any, running: Any, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, Any]:
    logits, rest = apply(params, running, images, train=True)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), (logits, *rest)


def fold(params: Any, running: Any) -> dict[str, Any]:
    """Returns parameters that give the same logits in inference, without a batch norm."""
    folded = {"fc": params["fc"]}
    for norm, statistics in running.items():
        kernel, bias = params[conv_of(norm)]
        folded[conv_of(norm)] = jaxbn.fold_batch_norm(kernel, bias, statistics, *params[norm])
    return folded


def exported(folded: Any, image: tuple[int, ...]) -> bytearray:
    """Exports the network for any number of images of this shape, in a form that runs without jaxbn."""
    images = jax.ShapeDtypeStruct(jax.export.symbolic_shape(f"batch, {', '.join(map(str, image))}"), jnp.float32)
    return jax.export.export(jax.jit(lambda images: apply(folded, {}, images)[0]))(images).serialize()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=40, help="training steps in PyTorch, and then in both")
    parser.add_argument("--seed", type=int, default=0, help="for the initial parameters and the order of the images")
    parser.add_argument("--output", type=Path, default=Path("runs/from_pytorch"), help="folder for the picture")
    options = parser.parse_args(arguments)
    if options.steps < 1 or options.seed < 0:
        parser.error("--steps must be at least 1, --seed at least 0")
    options.output.mkdir(parents=True, exist_ok=True)
    first, second, compared, images = results.batches(options.steps, options.seed)
    logits, gradients = jax.jit(lambda *arrays: apply(*arrays)[0]), jax.jit(jax.value_and_grad(loss, has_aux=True))

    torch.manual_seed(options.seed)
    model = ResNet18()
    losses = [results.train_torch(model, first)]
    params, running = from_torch(model.state_dict())
    folded = fold(params, running)
    before = logits(params, running, images)
    program = jax.export.deserialize(exported(folded, images.shape[1:]))
    changes = {
        "logits of the folded network": results.difference(logits(folded, {}, images), before),
        "logits of the exported network": results.difference(program.call(images), before),
    }
    ours = results.of_jax(jax.jit(apply), gradients, params, running, compared)
    theirs, precise = (results.of_torch(model, compared, from_torch, dtype) for dtype in (torch.float32, torch.float64))

    losses.append(results.train_torch(model, second))
    trained, new_running, in_jax = results.train_jax(gradients, params, running, second)
    back = ResNet18()
    back.load_state_dict(to_torch(trained, new_running), strict=True)
    after = logits(trained, new_running, images)
    changes["logits after training in JAX, back in PyTorch"] = results.difference(results.infer(back, images), after)

    results.print_table(ours, theirs, precise, changes)
    results.print_ratio(lambda: logits(params, running, images), lambda: logits(folded, {}, images))
    results.draw(ours, theirs, precise, [*losses, in_jax], options.output / "from_pytorch.png")
    print(f"picture: {options.output / 'from_pytorch.png'}")


if __name__ == "__main__":
    main()
