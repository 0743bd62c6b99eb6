"""How products are formed and summed."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax
from jax.typing import DTypeLike


class Arithmetic(NamedTuple):
    """In ``jax.lax``'s words; and what settles the algorithm beside the geometry."""

    precision: lax.PrecisionLike = None
    preferred_element_type: DTypeLike | None = None
    algorithm: str | None = None  # the caller's, by name
    platform: str | None = None  # that the program is lowered for, filled in there

    @property
    def products(self) -> dict[str, Any]:
        """The arguments by which ``lax``'s products and convolutions take it."""
        return {"precision": self.precision, "preferred_element_type": self.preferred_element_type}

    def result_type(self, operand: jax.Array) -> np.dtype:
        return operand.dtype if self.preferred_element_type is None else np.dtype(self.preferred_element_type)
