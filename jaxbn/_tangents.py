"""Tangent rules: the code that the functions with ``forward_mode=True`` share.

Such a function is a `jax.custom_jvp`. Its rule computes the tangent of the output by a *tangent map*, which is linear
in the tangents of the arguments. Forward mode evaluates the map; for reverse mode JAX transposes it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero


def apply_tangent_map(tangent_map: Callable[..., Any], residuals: Any, tangents: Sequence[Any]) -> Any:
    """Call ``tangent_map(residuals, *tangents)`` so that reverse mode saves only the residuals.

    Without `jax.checkpoint`, JAX would save every array that the map multiplies a tangent by. Batch norm's x̂ is such an
    array, as large as ``x``; it is computed again from the residuals. (A compiled program for the CPU may keep it
    nevertheless, because XLA removes the barriers of `jax.checkpoint` there.)

    A tangent that is known to be zero is passed to the map as ``None``, so that the map can leave out the terms with
    it. Otherwise JAX would compute these terms, and would save the zeros for reverse mode.
    """
    nonzero = jax.tree.map(
        lambda tangent: None if isinstance(tangent, SymbolicZero) else tangent,
        tuple(tangents),
        is_leaf=lambda tangent: isinstance(tangent, SymbolicZero),
    )
    return jax.checkpoint(tangent_map)(residuals, *nonzero)


def vector_tangent(tangent: jax.Array | None, like: jax.Array) -> jax.Array:
    """The tangent of a vector of channels, in the dtype of ``like``; zeros for ``None``."""
    return jnp.zeros_like(like) if tangent is None else tangent.astype(like.dtype)
