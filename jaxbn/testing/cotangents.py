"""Cotangents that reveal mistakes: random ones, and special ones that make terms vanish or appear alone.

A constant cotangent, as a loss of ``.sum()`` gives, hides many mistakes: batch norm's input gradient is zero for it,
and so is the gradient that many wrong rules compute.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxbn.testing.problem import Leaf

GAUSSIAN = 16
"""The number of Gaussian cotangents."""

JACOBIAN = 256
"""If the outputs have at most this many entries, every row of the Jacobian is checked."""

FAMILIES = ("gaussian", "constant", "y", "y+1", "one-hot", "alternating", "each output alone", "zero", "linearity")


class Cotangent(NamedTuple):
    """A cotangent for each output, and Python code that computes the cotangent of an output ``y``."""

    family: str
    label: str
    arrays: list[jax.Array]
    python: str


def gaussian(outputs: Sequence[Leaf], seed: int, number: int) -> Cotangent:
    generator = np.random.default_rng((seed, number))
    arrays = [jnp.asarray(generator.standard_normal(y.shape), y.dtype) for y in outputs]
    setup = f"generator = np.random.default_rng(({seed}, {number}))\n"
    return Cotangent("gaussian", f"gaussian {number}", arrays, setup + "generator.standard_normal(y.shape)")


def cotangents_of(
    outputs: Sequence[Leaf], values: Sequence[np.ndarray], families: Sequence[str], seed: int
) -> Iterator[Cotangent]:
    """Yields the chosen cotangents, except "zero" and "linearity", which have separate checks.

    ``values`` are the values of the outputs.
    """
    if "gaussian" in families:
        yield from (gaussian(outputs, seed, number) for number in range(GAUSSIAN))
    finite = [_clipped(np.where(np.isfinite(y), y, 0.0), leaf) for y, leaf in zip(values, outputs, strict=True)]
    special = {
        "constant": ([np.ones_like(y) for y in finite], "np.ones(y.shape)"),
        "y": (finite, "np.where(np.isfinite(y), y, 0)"),
        "y+1": ([y + 1 for y in finite], "np.where(np.isfinite(y), y, 0) + 1"),
        "alternating": ([np.resize([1.0, -1.0], y.shape) for y in finite], "np.resize([1.0, -1.0], y.shape)"),
    }
    for family, (arrays, python) in special.items():
        if family in families and any(np.any(array) for array in arrays):
            yield Cotangent(family, family, _cast(arrays, outputs), python)
    if "one-hot" in families:
        yield from _one_hots(outputs)
    if "each output alone" in families and len(outputs) > 1:
        yield from _single_outputs(outputs, seed)


def _one_hots(outputs: Sequence[Leaf]) -> Iterator[Cotangent]:
    """Yields every row of the Jacobian if there are few; otherwise at most four rows of each output."""
    total = sum(y.size for y in outputs)
    for place, y in enumerate(outputs):
        few = {0, y.size // 3, y.size // 2, y.size - 1} if y.size else set()
        for entry in range(y.size) if total <= JACOBIAN else sorted(few):
            arrays = [np.zeros(output.shape) for output in outputs]
            arrays[place].flat[entry] = 1.0
            index = ", ".join(str(int(i)) for i in np.unravel_index(entry, y.shape))
            python = f"np.arange(y.size).reshape(y.shape) == ({entry} if number == {place} else -1)"
            yield Cotangent("one-hot", f"one-hot {y.name}[{index}]", _cast(arrays, outputs), python)


def _single_outputs(outputs: Sequence[Leaf], seed: int) -> Iterator[Cotangent]:
    """Yields a Gaussian cotangent for each output, with zeros for the other outputs."""
    for place, y in enumerate(outputs):
        normal = gaussian(outputs, seed, GAUSSIAN + place)
        arrays = [dy if other == place else jnp.zeros_like(dy) for other, dy in enumerate(normal.arrays)]
        python = f"{normal.python} * (number == {place})"
        yield Cotangent("each output alone", f"{y.name} alone", arrays, python)


def zero(outputs: Sequence[Leaf]) -> Cotangent:
    return Cotangent("zero", "zero", _cast([np.zeros(y.shape) for y in outputs], outputs), "np.zeros(y.shape)")


def size_of(cotangent: Sequence[Any]) -> float:
    """‖dy‖∞ over all outputs."""
    return max((float(np.max(np.abs(np.asarray(dy).astype(np.float64)), initial=0.0)) for dy in cotangent), default=0.0)


def _clipped(array: np.ndarray, y: Leaf) -> np.ndarray:
    """Clips to half of the largest number of the output's dtype."""
    largest = float(jnp.finfo(y.dtype).max) / 2
    return np.clip(array, -largest, largest)


def _cast(arrays: Sequence[np.ndarray], outputs: Sequence[Leaf]) -> list[jax.Array]:
    return [jnp.asarray(array, y.dtype) for array, y in zip(arrays, outputs, strict=True)]
