"""Counts the bytes that a function keeps from its forward pass for its backward pass."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.extend.core import Literal


class SavedBytes(NamedTuple):
    """Bytes that are kept from a forward pass for the backward pass.

    Attributes:
        inputs: Bytes of the caller's arrays, which are in memory anyway: the arguments, and arrays that the function
            closes over.
        added: Bytes of arrays that the function has computed.
    """

    inputs: int
    added: int


def saved_bytes(function: Callable[..., Any], *args: Any) -> SavedBytes:
    """Counts what ``jax.vjp(function, *args)`` keeps for the backward pass, without running it.

    An array that is kept several times is counted once. The count is for the traced program. If that program is
    compiled as a whole, XLA may recompute an array instead of keeping it.

    Args:
        function: A function that `jax.vjp` can differentiate.
        *args: The function's arguments: arrays, `jax.ShapeDtypeStruct`, or pytrees of these.

    Returns:
        The bytes of inputs and of computed arrays.

    Raises:
        TypeError: ``function`` cannot be differentiated at ``args``; the message is that of `jax.vjp`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> x = jnp.ones(1000, jnp.float32)
        >>> saved_bytes(lambda x: jnp.sin(x) * x, x)  # x, sin x and cos x
        SavedBytes(inputs=4000, added=8000)
        >>> saved_bytes(jax.checkpoint(lambda x: jnp.sin(x) * x), x)
        SavedBytes(inputs=4000, added=0)
    """

    def residuals(*args: Any) -> list[jax.Array]:
        return jax.tree.leaves(jax.vjp(function, *args)[1])

    jaxpr = jax.make_jaxpr(residuals)(*args).jaxpr
    inputs = {*jaxpr.invars, *jaxpr.constvars}
    saved = {var for var in jaxpr.outvars if not isinstance(var, Literal)}
    return SavedBytes(
        sum(_bytes(var) for var in saved if var in inputs), sum(_bytes(var) for var in saved if var not in inputs)
    )


def _bytes(var: Any) -> int:
    return var.aval.size * var.aval.dtype.itemsize
