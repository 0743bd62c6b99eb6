"""The table of convolutions to measure, with the floor of each ratio on the CPU.

A ratio is plain autodiff's time over this library's. Shapes are (batch, *spatial, channels) for ``x`` and
(*window, in // groups, out) for the kernel. For a transposed convolution the kernel's shape is that of the convolution
that it transposes, (*window, out, in).
"""

from dataclasses import dataclass, replace
from itertools import product
from typing import NamedTuple

import numpy as np

Sizes = tuple[int, ...]
DENSE = "dense"
RANDOM = "random"
REPEATS = 8
"""How often a row within a loop or `vmap` is computed."""


class Floors(NamedTuple):
    """The floors of the forward pass and of the two gradients. A quantity whose floor is None is not measured."""

    forward: float | None
    dx: float
    dkernel: float


@dataclass(frozen=True)
class Convolution:
    """A row of the table."""

    name: str
    x: Sizes
    kernel: Sizes
    floors: Floors
    stride: int | Sizes = 1
    padding: str = "SAME"
    dilation: int | Sizes = 1
    groups: int = 1
    transposed: bool = False
    within: str | None = None  # computed `REPEATS` times in "scan" or "map", or under "vmap"
    quick: bool = False
    peers: bool = False

    @property
    def strides(self) -> Sizes:
        return self.stride if isinstance(self.stride, tuple) else (self.stride,) * (len(self.x) - 2)


def dense() -> list[Convolution]:
    """Convolutions with windows of 3 and 5, strides of 1 and 2, one to three dimensions, and 3 to 256 channels."""
    sizes = {
        (1, 3, 64): (16, 1024),
        (1, 16, 32): (16, 1024),
        (1, 64, 64): (16, 512),
        (1, 256, 256): (8, 256),
        (2, 3, 64): (16, 32, 32),
        (2, 16, 32): (16, 32, 32),
        (2, 64, 64): (16, 32, 32),
        (2, 256, 256): (4, 14, 14),
        (3, 3, 32): (2, 16, 16, 16),
        (3, 16, 32): (2, 12, 12, 12),
        (3, 64, 64): (1, 8, 8, 8),
        (3, 256, 256): (1, 6, 6, 6),
    }
    return [
        Convolution(
            f"{DENSE} {'×'.join([str(side)] * dimensions)}{f' stride {stride}' if stride > 1 else ''}, {into}→{out}",
            (*size, into),
            (*(side,) * dimensions, into, out),
            Floors(0.95, 0.95, 0.95),
            stride,
            quick=(side, stride, into) == (3, 1, 16),
            peers=dimensions == 2 and side == 3,
        )
        for (dimensions, into, out), size in sizes.items()
        for side, stride in product((3, 5), (1, 2))
    ]


_IN_A_LOOP = Convolution("3×3 in lax.scan", (32, 16, 16, 16), (3, 3, 16, 32), Floors(None, 15, 30), within="scan")

LOOPS = [
    replace(_IN_A_LOOP, quick=True),
    replace(_IN_A_LOOP, name="3×3 in lax.map", within="map"),
    replace(_IN_A_LOOP, name="3×3 under vmap", within="vmap", floors=Floors(6, 8, 4), quick=True),
]

GROUPS = [
    Convolution(
        f"groups {groups}",
        (32, 32, 32, 64),
        (3, 3, 64 // groups, 64),
        Floors(3, 2.5, 25),
        groups=groups,
        quick=groups == 4,
        peers=True,
    )
    for groups in (2, 4, 8, 32)
]

DEPTHWISE = [
    Convolution(
        f"depthwise {side}×{side}",
        (32, 32, 32, 64),
        (side, side, 1, 64),
        Floors(15, 15, 5),
        groups=64,
        quick=side == 3,
        peers=True,
    )
    for side in (3, 5, 7)
]

PATCHES = [
    Convolution(
        f"patches {side}×{side}, {x[-1]}→{out}",
        x,
        (side, side, x[-1], out),
        # With small patches XLA's convolution already reaches a third of peak arithmetic, so 10 times is impossible.
        Floors(1, 10 if side == 16 else 1, 1),
        side,
        "VALID",
        quick=side == 4,
        peers=True,
    )
    for side, x, out in (
        (4, (16, 56, 56, 32), 64),
        (4, (16, 112, 112, 3), 48),
        (8, (16, 112, 112, 3), 96),
        (16, (16, 224, 224, 3), 192),
    )
]

POINTWISE = Convolution("1×1", (32, 32, 32, 64), (1, 1, 64, 64), Floors(1, 1, 3), quick=True, peers=True)

TRANSPOSED = [
    Convolution(
        "transposed 4×4 stride 2",
        (16, 16, 16, 64),
        (4, 4, 32, 64),
        Floors(1, 1, 12),
        2,
        transposed=True,
        quick=True,
        peers=True,
    ),
    Convolution(
        "transposed 3×3×3 stride 2",
        (1, 16, 16, 16, 32),
        (3, 3, 3, 8, 32),
        Floors(5, 1, 1),
        2,
        transposed=True,
        peers=True,
    ),
]


LARGE_BATCHES = [
    Convolution(f"large batch, {name}", x, (*window, x[-1], out), Floors(0.95, dx, dkernel), stride, peers=True)
    for name, x, window, out, stride, dx, dkernel in (
        ("32×32, 64→64", (128, 32, 32, 64), (3, 3), 64, 1, 1, 2),
        ("32×32, 64→128, stride 2", (128, 32, 32, 64), (3, 3), 128, 2, 1.5, 1.5),
        ("16×16, 128→128", (128, 16, 16, 128), (3, 3), 128, 1, 0.95, 1.3),
        ("112×112, 64→64", (16, 112, 112, 64), (3, 3), 64, 1, 0.95, 1.5),
        ("224×224, 3→64, stride 2", (16, 224, 224, 3), (7, 7), 64, 2, 1.5, 1.3),
        ("line of 4096, 32→64", (64, 4096, 32), (5,), 64, 1, 0.95, 0.95),
        ("32×32×32, 16→32", (8, 32, 32, 32, 16), (3, 3, 3), 32, 1, 0.95, 0.95),
    )
]

TABLE = [*LOOPS, *GROUPS, *DEPTHWISE, *PATCHES, POINTWISE, *TRANSPOSED, *LARGE_BATCHES]


def random_geometries(count: int, seed: int = 0) -> list[Convolution]:
    """Small random convolutions, which reveal shapes that no algorithm handles well."""
    rng = np.random.default_rng(seed)
    return [_draw(rng, f"{RANDOM} {number}") for number in range(count)]


def _draw(rng: np.random.Generator, name: str) -> Convolution:
    def pick(*choices: int) -> int:
        return int(rng.choice(choices))

    dimensions, groups = pick(1, 2, 2, 2, 3), pick(1, 1, 2, 4, 16)
    low, high = {1: (100, 400), 2: (12, 40), 3: (6, 14)}[dimensions]
    spatial = tuple(int(side) for side in rng.integers(low, high, dimensions))
    window = tuple(pick(1, 2, 3, 5) for _ in spatial)
    into, out = pick(1, 2, 4, 8), pick(1, 2, 4, 8)
    return Convolution(
        name,
        (4, *spatial, groups * into),
        (*window, into, groups * out),
        Floors(0.8, 0.8, 0.8),
        stride=tuple(pick(1, 1, 2, 3) for _ in spatial),
        dilation=pick(1, 1, 2),
        groups=groups,
    )
