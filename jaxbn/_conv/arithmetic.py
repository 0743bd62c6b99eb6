"""How products are formed and summed."""

from typing import NamedTuple

import jax
from jax import lax
from jax.typing import DTypeLike


class Arithmetic(NamedTuple):
    """In ``jax.lax``'s words, and the name of the algorithm that the caller forces, if any."""

    precision: lax.PrecisionLike = None
    preferred_element_type: DTypeLike | None = None
    algorithm: str | None = None

    @property
    def products(self) -> dict:
        """The arguments by which ``lax``'s products and convolutions take it."""
        return {"precision": self.precision, "preferred_element_type": self.preferred_element_type}

    def result_type(self, left: jax.Array, right: jax.Array):
        return self.preferred_element_type or left.dtype
