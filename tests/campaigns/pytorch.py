"""Layers of PyTorch brought over and back, beside PyTorch itself; its results are committed, for the tests.

    python -m tests.campaigns.pytorch     # needs PyTorch; about a minute

100 convolutions, transposed convolutions and batch norms are drawn: one to three dimensions, strides, dilations,
groups, with and without biases, parameters and statistics. In float64 each layer is brought over, its outputs in
training and in inference are compared, the convolutions are folded with a batch norm, and a fresh layer takes the state
back.
"""

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from tqdm import tqdm

import jaxbn
from jaxbn.torch import (
    batch_norm_from_torch,
    batch_norm_to_torch,
    conv_from_torch,
    conv_to_torch,
    conv_transpose_from_torch,
    conv_transpose_to_torch,
)

RESULTS = Path(__file__).with_name("pytorch.json")
COUNT, MOST = 100, 1e-10
STORED = 3
"""How many of each kind the tests compare with."""


def channels_last(x: Any) -> jax.Array:
    return jnp.moveaxis(jnp.asarray(x.detach().numpy()), 1, -1)


def draw(rng: np.random.Generator, kind: str) -> tuple[dict[str, Any], Any]:
    """The options of a layer, and an input."""
    dimensions = int(rng.integers(1, 4))
    groups = int(rng.choice([1, 1, 2, 3]))
    into, out = (groups * int(rng.integers(1, 3)) for _ in range(2))
    sizes = [int(size) for size in rng.integers(4, 7, dimensions)]
    x = torch.from_numpy(rng.normal(size=(3, into, *sizes)))
    if kind == "batch_norm":
        affine, tracked = (bool(rng.integers(0, 4)) for _ in range(2))
        return {"num_features": into, "affine": affine, "track_running_stats": tracked}, x
    options = {"in_channels": into, "out_channels": out, "groups": groups, "bias": bool(rng.integers(0, 3))}
    options["kernel_size"] = [int(side) for side in rng.integers(1, 4, dimensions)]
    for name, most in (("stride", 3), ("dilation", 2)):
        options[name] = [int(step) for step in rng.integers(1, most + 1, dimensions)]
    options["padding"] = [int(side) for side in rng.integers(0, 2, dimensions)]
    return options, x


def convolution(options: dict[str, Any], x: Any, transposed: bool) -> dict[str, Any]:
    """The layer's state, its output, and how far jaxbn's are from them."""
    name = f"Conv{'Transpose' if transposed else ''}{x.ndim - 2}d"
    layer, back = (getattr(torch.nn, name)(**options, dtype=torch.float64) for _ in range(2))
    from_torch, to_torch = (
        (conv_transpose_from_torch, conv_transpose_to_torch) if transposed else (conv_from_torch, conv_to_torch)
    )
    kernel, bias = from_torch(layer)
    given = {name: tuple(options[name]) for name in ("stride", "padding", "dilation")} | {"groups": options["groups"]}
    function: Callable[..., Any] = jaxbn.conv_transpose if transposed else jaxbn.conv
    want = layer(x)
    errors = [jnp.abs(function(channels_last(x), kernel, bias, **given) - channels_last(want)).max()]

    norm = getattr(torch.nn, f"BatchNorm{x.ndim - 2}d")(options["out_channels"], dtype=torch.float64)
    norm(want)
    gamma, beta, running = batch_norm_from_torch(norm.eval())
    assert running is not None
    folded = jaxbn.fold_batch_norm(kernel, bias, running, gamma, beta, transposed=transposed, groups=options["groups"])
    errors.append(jnp.abs(function(channels_last(x), *folded, **given) - channels_last(norm(want))).max())

    back.load_state_dict(to_torch(kernel, bias), strict=True)
    errors.append((back(x) - want).abs().max().detach())
    return stored(name, options, layer, x, want, errors)


def batch_norm(options: dict[str, Any], x: Any) -> dict[str, Any]:
    name = f"BatchNorm{x.ndim - 2}d"
    layer, back = (getattr(torch.nn, name)(**options, dtype=torch.float64) for _ in range(2))
    if options["affine"]:
        for parameter in layer.parameters():
            torch.nn.init.normal_(parameter)
    gamma, beta, running = batch_norm_from_torch(layer.state_dict())
    errors = []
    for step in range(3):
        given = x + step
        y, moments = jaxbn.batch_norm(channels_last(given), gamma, beta)
        errors.append(jnp.abs(y - channels_last(layer(given))).max())
        running = None if running is None else jaxbn.update_running_stats(running, moments)
    state = layer.state_dict()
    if running is not None:
        errors += [jnp.abs(running.mean - state["running_mean"].numpy()).max()]
        errors += [jnp.abs(running.var - state["running_var"].numpy()).max()]
        assert running.updates.tolist() == [int(state["num_batches_tracked"])] * len(running.updates)
    back.load_state_dict(batch_norm_to_torch(gamma, beta, running), strict=True)
    want = layer.eval()(x)
    errors.append((back.eval()(x) - want).abs().max().detach())
    return stored(name, options, layer, x, want, errors)


def stored(name: str, options: dict[str, Any], layer: Any, x: Any, want: Any, errors: list[Any]) -> dict[str, Any]:
    state = {key: value.tolist() for key, value in layer.state_dict().items()}
    record = {"layer": name, "options": options, "state": state, "x": x.tolist(), "y": want.tolist()}
    return record | {"error": max(map(float, errors))}


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    kinds = ("convolution", "transposed convolution", "batch_norm")
    results: dict[str, list[dict[str, Any]]] = {kind: [] for kind in kinds}
    for number in tqdm(range(COUNT), unit="layer"):
        kind = kinds[number % len(kinds)]
        options, x = draw(rng, kind)
        result = batch_norm(options, x) if kind == "batch_norm" else convolution(options, x, "transposed" in kind)
        results[kind].append(result)
    worst = {kind: max(each["error"] for each in results[kind]) for kind in kinds}
    print(worst)
    assert max(worst.values()) < MOST
    document = {
        "command": "python -m tests.campaigns.pytorch",
        "date": str(date.today()),
        "versions": {"torch": torch.__version__, "jax": jax.__version__},
        "layers": {kind: len(results[kind]) for kind in kinds},
        "worst error": worst,
        "stored": [each for kind in kinds for each in sorted(results[kind], key=lambda each: len(str(each)))[:STORED]],
    }
    RESULTS.write_text(json.dumps(document) + "\n")


if __name__ == "__main__":
    main()
