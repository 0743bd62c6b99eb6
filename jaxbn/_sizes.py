"""Sizes that are not known when a program is traced: the symbols of `jax.export`.

A comparison with a symbol raises, or is False where it could be either. So whatever depends on a size is either right
for all sizes, or asks first whether the size is known.
"""

from typing import Any

import numpy as np

LIKELY = 4096
"""Stands for an unknown size in a choice that is right for every size. A large number loses fewer digits."""


def is_known(*sizes: Any) -> bool:
    """Whether every size is a number."""
    return all(isinstance(size, (int, np.integer)) for size in sizes)


def likely(*sizes: Any) -> tuple[int, ...]:
    """The sizes as numbers, for a choice between ways of computing that are right for all sizes."""
    return tuple(size if is_known(size) else LIKELY for size in sizes)
