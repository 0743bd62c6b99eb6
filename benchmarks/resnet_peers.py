"""The network of `benchmarks.resnet` in other libraries."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from flax import nnx

from benchmarks.network_peers import CLASSES, Models
from benchmarks.resnet import WIDTHS, Block, blocks


class _FlaxLayer(nnx.Module):
    def __init__(self, side: int, into: int, out: int, stride: int, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(into, out, (side, side), stride, use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(out, momentum=0.9, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.norm(self.conv(x))


class _FlaxBlock(nnx.Module):
    def __init__(self, block: Block, rngs: nnx.Rngs) -> None:
        into, out, stride = block
        self.first = _FlaxLayer(3, into, out, stride, rngs)
        self.second = _FlaxLayer(3, out, out, 1, rngs)
        self.shortcut = _FlaxLayer(1, into, out, stride, rngs) if block.has_shortcut else None

    def __call__(self, x: Any) -> Any:
        y = self.second(nnx.relu(self.first(x)))
        return nnx.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class _FlaxNetwork(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.first = _FlaxLayer(3, 3, WIDTHS[0], 1, rngs)
        self.blocks = nnx.List([_FlaxBlock(block, rngs) for block in blocks()])
        self.dense = nnx.Linear(WIDTHS[-1], CLASSES, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = nnx.relu(self.first(x))
        for block in self.blocks:
            x = block(x)
        return self.dense(jnp.mean(x, (1, 2)))


class _EquinoxLayer(eqx.Module):
    conv: eqx.nn.Conv2d
    norm: eqx.nn.BatchNorm

    def __init__(self, side: int, into: int, out: int, stride: int, key: Any) -> None:
        self.conv = eqx.nn.Conv2d(into, out, side, stride, "SAME", use_bias=False, key=key)
        self.norm = eqx.nn.BatchNorm(out, "batch", mode="batch")

    def __call__(self, x: Any, state: Any) -> Any:
        return self.norm(self.conv(x), state)


class _EquinoxBlock(eqx.Module):
    first: _EquinoxLayer
    second: _EquinoxLayer
    shortcut: _EquinoxLayer | None

    def __init__(self, block: Block, key: Any) -> None:
        into, out, stride = block
        self.first = _EquinoxLayer(3, into, out, stride, key)
        self.second = _EquinoxLayer(3, out, out, 1, key)
        self.shortcut = _EquinoxLayer(1, into, out, stride, key) if block.has_shortcut else None

    def __call__(self, x: Any, state: Any) -> Any:
        y, state = self.first(x, state)
        y, state = self.second(jax.nn.relu(y), state)
        if self.shortcut is not None:
            x, state = self.shortcut(x, state)
        return jax.nn.relu(x + y), state


class _EquinoxNetwork(eqx.Module):
    first: _EquinoxLayer
    blocks: list[_EquinoxBlock]
    dense: eqx.nn.Linear

    def __init__(self, key: Any) -> None:
        self.first = _EquinoxLayer(3, 3, WIDTHS[0], 1, key)
        self.blocks = [_EquinoxBlock(block, key) for block in blocks()]
        self.dense = eqx.nn.Linear(WIDTHS[-1], CLASSES, key=key)

    def __call__(self, x: Any, state: Any) -> Any:
        x, state = self.first(x, state)
        x = jax.nn.relu(x)
        for block in self.blocks:
            x, state = block(x, state)
        return self.dense(jnp.mean(x, (1, 2))), state


RESNET = Models(_FlaxNetwork, _EquinoxNetwork, "resnet", (WIDTHS, tuple(blocks())))
