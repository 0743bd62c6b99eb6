"""The static description of a convolution that the three bilinear maps take."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike

from jaxbn._conv.geometry import ConvGeometry


class Arithmetic(NamedTuple):
    """The precision of the products and the dtype of their sums, as in `jax.lax`."""

    precision: lax.PrecisionLike = None
    preferred_element_type: DTypeLike | None = None

    def result_type(self, operand: jax.Array) -> np.dtype:
        return operand.dtype if self.preferred_element_type is None else np.dtype(self.preferred_element_type)


@dataclass(frozen=True)
class ConvSpec:
    """One convolution in channels-last layout, shared by its forward map and its two gradients."""

    geometry: ConvGeometry
    arithmetic: Arithmetic
    algorithm: str | None = None  # the caller's choice; None lets the table choose


def precision_in_context(precision: Any) -> lax.PrecisionLike:
    """The caller's precision, or else the one that `jax.default_matmul_precision` sets around the call.

    The gradients are computed outside of that context, so it is read in the forward call.
    """
    precision = tuple(precision) if isinstance(precision, list) else precision
    return precision or jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]


def in_one_dtype(cotangent: jax.Array, *operands: jax.Array) -> tuple[jax.Array, ...]:
    """Cast a cotangent to the dtype of the operands that it is multiplied by, because such products are faster.

    If bfloat16 operands are summed in float32, the cotangent is float32. Cast to bfloat16, it keeps its range, and as
    many digits as the operands have. Cast to float16, it would overflow or vanish, so float16 operands are widened.
    """
    if operands[0].dtype == jnp.float16:
        return cotangent, *(operand.astype(cotangent.dtype) for operand in operands)
    return cotangent.astype(operands[0].dtype), *operands
