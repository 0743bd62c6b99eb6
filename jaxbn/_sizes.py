"""Array sizes that are unknown when a program is traced: the symbolic dimensions of `jax.export`.

A comparison with a symbolic size raises an error, or is False where the answer depends on the size. So a computation
must either be right for every size, or ask first whether the size is known.
"""

from typing import Any

import numpy as np

ASSUMED_SIZE = 4096
"""Replaces an unknown size. It is large, because sums over many values need short partial sums to keep their digits."""


def is_known(*sizes: Any) -> bool:
    """Whether every size is a number."""
    return all(isinstance(size, (int, np.integer)) for size in sizes)


def assumed_sizes(*sizes: Any) -> tuple[int, ...]:
    """Replace unknown sizes by a guess, to choose between computations that are right for every size."""
    return tuple(size if is_known(size) else ASSUMED_SIZE for size in sizes)
