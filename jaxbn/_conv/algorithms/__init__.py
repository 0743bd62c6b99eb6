"""Which algorithm runs a map: one file each, all of one shape, and the `table` by which they are chosen.

An algorithm says what it ``applies`` to and is right for all of that. The table says where it is fastest.
"""

import jax

from jaxbn._conv.algorithms import dense, depthwise, grouped, patches, pointwise, strided, transposed
from jaxbn._conv.algorithms.table import TABLE
from jaxbn._conv.arithmetic import Arithmetic
from jaxbn._conv.geometry import ConvGeometry

ALGORITHMS = {
    "pointwise": pointwise,
    "patches": patches,
    "depthwise": depthwise,
    "grouped": grouped,
    "transposed": transposed,
    "strided": strided,
    "dense": dense,
}


def choose(map_name: str, geometry: ConvGeometry, arithmetic: Arithmetic) -> tuple[str, str]:
    """The name of the algorithm that runs a map, and why."""
    if arithmetic.algorithm is not None:
        return arithmetic.algorithm, "the caller asked for it"
    for row in TABLE.get(arithmetic.platform or "", ()):
        if map_name in row.maps and ALGORITHMS[row.algorithm].applies(geometry) and row.when(geometry):
            return row.algorithm, row.why
    return "dense", "XLA's own convolution is the fastest known here"


def run(map_name: str, geometry: ConvGeometry, arithmetic: Arithmetic, left: jax.Array, right: jax.Array) -> jax.Array:
    """One member's map by the best algorithm."""
    name, _ = choose(map_name, geometry, arithmetic)
    return getattr(ALGORITHMS[name], map_name)(geometry, arithmetic, left, right)
