"""The network of the example in JAX, its parameters and its folding, on random numbers in PyTorch's layout.

PyTorch itself is not needed: the example is imported with a stand-in, whose tensors are NumPy's arrays.
"""

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

EXAMPLES = Path(__file__).parents[1]
MODULES = ("from_pytorch", "from_pytorch_results")
WIDTHS = (4, 5, 6, 7)


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The program with narrow layers."""
    torch = SimpleNamespace(nn=SimpleNamespace(Module=object), from_numpy=np.asarray, tensor=np.asarray)
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setitem(sys.modules, "torch", torch)
    with jax.enable_x64(False), jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        module = importlib.import_module("from_pytorch")
        monkeypatch.setattr(module, "WIDTHS", WIDTHS)
        yield module
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture
def state() -> dict[str, np.ndarray]:
    """A ``state_dict`` of torchvision's names and shapes."""
    rng, layers = np.random.default_rng(0), {"conv1": (WIDTHS[0], 3, 7, 7), "bn1": (WIDTHS[0],)}
    for stage, (into, out) in enumerate(zip((WIDTHS[0], *WIDTHS), WIDTHS, strict=False), 1):
        for block, channels in enumerate((into, out)):
            name = f"layer{stage}.{block}"
            layers |= {f"{name}.conv1": (out, channels, 3, 3), f"{name}.bn1": (out,)}
            layers |= {f"{name}.conv2": (out, out, 3, 3), f"{name}.bn2": (out,)}
            if channels != out:
                layers |= {f"{name}.downsample.0": (out, channels, 1, 1), f"{name}.downsample.1": (out,)}
    found = {}
    for name, shape in (layers | {"fc": (10, WIDTHS[-1])}).items():
        found[f"{name}.weight"] = rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))
        if len(shape) != 4:
            found[f"{name}.bias"] = rng.normal(size=shape[0])
        if len(shape) == 1:
            found |= {f"{name}.running_mean": rng.normal(size=shape), f"{name}.running_var": rng.uniform(1, 2, shape)}
    found = {name: value.astype(np.float32) for name, value in found.items()}
    return found | {f"{n}.num_batches_tracked": np.array(7) for n, shape in layers.items() if len(shape) == 1}


def plain(state: Any, images: jax.Array, train: bool) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The logits, and the new averages of the means, from `jax.lax` and PyTorch's documentation."""
    means = {}

    def conv(x: jax.Array, name: str, stride: int, padding: int) -> jax.Array:
        kernel = jnp.asarray(state[f"{name}.weight"])
        layout = ("NCHW", "OIHW", "NCHW")
        return lax.conv_general_dilated(x, kernel, (stride, stride), [(padding, padding)] * 2, dimension_numbers=layout)

    def norm(x: jax.Array, name: str) -> jax.Array:
        gamma, beta, mean, var = (
            state[f"{name}.{key}"][:, None, None] for key in ("weight", "bias", "running_mean", "running_var")
        )
        if train:
            means[name] = 0.9 * mean.ravel() + 0.1 * x.mean((0, 2, 3))
            mean, var = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
        return gamma * (x - mean) / jnp.sqrt(var + 1e-5) + beta

    x = jax.nn.relu(norm(conv(jnp.moveaxis(images, -1, 1), "conv1", 2, 3), "bn1"))
    x = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))  # with zeros, which the ReLU has left as the smallest
    x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 3, 3), (1, 1, 2, 2), "VALID")
    for stage in (1, 2, 3, 4):
        for block in (0, 1):
            name, stride = f"layer{stage}.{block}.", 2 if stage > 1 and block == 0 else 1
            y = jax.nn.relu(norm(conv(x, name + "conv1", stride, 1), name + "bn1"))
            y = norm(conv(y, name + "conv2", 1, 1), name + "bn2")
            if f"{name}downsample.0.weight" in state:
                x = norm(conv(x, name + "downsample.0", stride, 0), name + "downsample.1")
            x = jax.nn.relu(x + y)
    return x.mean((2, 3)) @ state["fc.weight"].T + state["fc.bias"], means


def images(count: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(1).normal(size=(count, 32, 32, 3)), jnp.float32)


def assert_near(got: Any, want: Any, most: float) -> None:
    np.testing.assert_allclose(got, want, rtol=0, atol=most * np.abs(want).max())


@pytest.mark.parametrize("train", [True, False])
def test_the_network_is_pytorchs(example: ModuleType, state: dict[str, np.ndarray], train: bool) -> None:
    params, running = example.from_torch(state)
    got, (new, outputs) = jax.jit(lambda x: example.apply(params, running, x, train))(images(6))
    want, means = jax.jit(lambda x: plain(state, x, train))(images(6))
    assert_near(got, want, 1e-5)
    assert len(outputs) == 17
    for name, mean in means.items():
        assert_near(new[name].mean, mean, 1e-5)
    assert {int(stats.updates[0]) for stats in new.values()} == {8 if train else 7}


def test_folded_and_exported_it_gives_the_same(example: ModuleType, state: dict[str, np.ndarray]) -> None:
    params, running = example.from_torch(state)
    folded = example.fold(params, running)
    assert set(folded) == set(params) - set(running)
    want, _ = plain(state, images(3), train=False)
    got, _ = jax.jit(lambda x: example.apply(folded, {}, x))(images(3))
    assert_near(got, want, 1e-5)
    assert_near(jax.export.deserialize(example.exported(folded, (32, 32, 3))).call(images(3)), want, 1e-5)


def test_there_and_back(example: ModuleType, state: dict[str, np.ndarray]) -> None:
    back = example.to_torch(*example.from_torch(state))
    assert set(back) == set(state)
    for name, value in state.items():
        np.testing.assert_array_equal(back[name], value)


def test_the_difference_is_the_worst_of_all(example: ModuleType) -> None:
    want = {"a": np.array([1.0, -10.0]), "b": (np.array([2.0]),)}
    got = {"a": np.array([1.5, -10.0]), "b": (np.array([2.2]),)}
    assert example.results.difference(got, want) == pytest.approx(0.1)


def test_without_pytorch_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "from_pytorch", raising=False)
    wanted = 'PyTorch is missing; python -m pip install torch "jaxbn[examples]"'
    with pytest.raises(SystemExit, match=re.escape(wanted)):
        importlib.import_module("from_pytorch")
