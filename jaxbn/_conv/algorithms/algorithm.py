"""The interface of the algorithms, and the context that they are given besides the geometry.

An algorithm is a module with the functions of `Algorithm`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import jax

from jaxbn._conv.geometry import ConvGeometry
from jaxbn._conv.spec import Arithmetic

MapName = Literal["convolve", "input_gradient", "kernel_gradient"]

Run = Callable[[MapName, ConvGeometry, "Context", jax.Array, jax.Array], jax.Array]


@dataclass(frozen=True)
class Context:
    """The arithmetic, where the program will run, and the function that computes a smaller convolution there."""

    arithmetic: Arithmetic
    platform: str | None  # None if it is not known
    on_one_device: bool  # False if a partitioner may divide the arrays among devices
    native: bool  # whether the program may call this machine's native kernels
    run: Run  # computes a map of a smaller convolution by the algorithm that is the fastest for it


class Algorithm(Protocol):
    """One way to compute the three maps of a convolution in channels-last layout."""

    def applies(self, geometry: ConvGeometry) -> bool: ...

    def convolve(self, geometry: ConvGeometry, context: Context, x: jax.Array, kernel: jax.Array) -> jax.Array: ...

    def input_gradient(
        self, geometry: ConvGeometry, context: Context, dy: jax.Array, kernel: jax.Array
    ) -> jax.Array: ...

    def kernel_gradient(self, geometry: ConvGeometry, context: Context, x: jax.Array, dy: jax.Array) -> jax.Array: ...
