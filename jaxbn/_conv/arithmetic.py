"""How products are formed and summed."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike


def like_operand(cotangent: jax.Array, operand: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A cotangent and the operand that it meets, in one dtype: the operand's, which is the faster one.

    A product of bfloat16 operands that is summed in float32 has a float32 cotangent. In bfloat16 it keeps its range and
    the digits that the operands have. In float16 it would overflow or vanish: there the operand is widened.
    """
    if operand.dtype == jnp.float16:
        return cotangent, operand.astype(cotangent.dtype)
    return cotangent.astype(operand.dtype), operand


def in_context(precision: Any) -> Any:
    """The caller's, or what the context of the call sets: the gradients are computed outside of that context."""
    precision = tuple(precision) if isinstance(precision, list) else precision
    return precision or jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]


class Arithmetic(NamedTuple):
    """In ``jax.lax``'s words; and what settles the algorithm beside the geometry."""

    precision: lax.PrecisionLike = None
    preferred_element_type: DTypeLike | None = None
    algorithm: str | None = None  # the caller's, by name
    platform: str | None = None  # that the program is lowered for, filled in there
    on_one_device: bool = False  # whether its arrays are all there, filled in there as well

    @property
    def products(self) -> dict[str, Any]:
        """The arguments by which ``lax``'s products and convolutions take it."""
        return {"precision": self.precision, "preferred_element_type": self.preferred_element_type}

    def result_type(self, operand: jax.Array) -> np.dtype:
        return operand.dtype if self.preferred_element_type is None else np.dtype(self.preferred_element_type)
