"""How two ways of computing the same thing are compared."""

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.support.compiled import without_effort

Function = Callable[..., Any]


def cotangents(outputs: Sequence[Any], seed: int) -> list[jax.Array]:
    """Normal ones, a different one for each output."""
    generator = np.random.default_rng(1000 + seed)
    return [jnp.asarray(generator.normal(size=y.shape), y.dtype) for y in outputs]


def pullback(
    function: Function, arrays: Sequence[jax.Array], dy: Sequence[jax.Array]
) -> tuple[Any, tuple[jax.Array, ...]]:
    outputs, vjp = jax.vjp(function, *arrays)
    return outputs, vjp(list(dy))


@cache
def jitted_pullback(function: Function) -> Function:
    return jax.jit(partial(pullback, function))


@cache
def jitted(function: Function) -> Function:
    """The same one for the same function, so that it is traced once for each type of its arguments."""
    return jax.jit(function)


@cache
def true_pullback(function: Function) -> Function:
    """Of what is compared with, in float64: how well it is compiled is not asked."""
    return jax.jit(partial(pullback, function), compiler_options=without_effort())


def assert_close(got: Any, want: Any, tolerance: float, names: Sequence[str] | None = None) -> None:
    """Every leaf within ``tolerance`` of the wanted one's ∞-norm, with its shape and dtype."""
    got_leaves, want_leaves = jax.tree.leaves(got), jax.tree.leaves(want)
    assert jax.tree.structure(got) == jax.tree.structure(want)
    labels = names if names and len(names) == len(got_leaves) else [f"leaf {index}" for index in range(len(got_leaves))]
    for label, ours, theirs in zip(labels, got_leaves, want_leaves, strict=True):
        assert ours.shape == theirs.shape, f"{label}: shape {ours.shape}, wanted {theirs.shape}"
        assert ours.dtype == theirs.dtype, f"{label}: dtype {ours.dtype}, wanted {theirs.dtype}"
        error = np.max(np.abs(np.asarray(ours) - np.asarray(theirs)), initial=0.0)
        scale = np.max(np.abs(np.asarray(theirs)), initial=0.0)
        assert error <= tolerance * scale, f"{label}: off by {error:.3g}, largest wanted {scale:.3g}"
