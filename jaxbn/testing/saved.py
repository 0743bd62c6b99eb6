"""What a test or a curious user measures of a differentiable function."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.extend.core import Literal


class SavedBytes(NamedTuple):
    """Bytes that are kept from a forward pass for the backward pass.

    Attributes:
        inputs: Of the caller's own arrays, which are in memory anyway: arguments, and arrays that the function closes
            over.
        added: Of what the function has computed.
    """

    inputs: int
    added: int


def saved_bytes(function: Callable[..., Any], *args: Any) -> SavedBytes:
    """Counts what ``jax.vjp(function, *args)`` keeps for the backward pass, without running it.

    Every array is counted once, however often it is kept. The count is of the program as JAX traces it: in a compiled
    whole, XLA may compute anew or share.

    Args:
        function: Any function that `jax.vjp` takes.
        *args: Its arguments, arrays or pytrees of them; `jax.ShapeDtypeStruct` will do.

    Returns:
        The bytes of the inputs among them, and of the rest.

    Raises:
        TypeError: ``function`` cannot be differentiated in ``args``, as `jax.vjp` says.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> x = jnp.ones(1000, jnp.float32)
        >>> saved_bytes(lambda x: jnp.sin(x) * x, x)  # x, sin x and cos x
        SavedBytes(inputs=4000, added=8000)
        >>> saved_bytes(jax.checkpoint(lambda x: jnp.sin(x) * x), x)
        SavedBytes(inputs=4000, added=0)
    """

    def kept(*args: Any) -> list[jax.Array]:
        return jax.tree.leaves(jax.vjp(function, *args)[1])

    jaxpr = jax.make_jaxpr(kept)(*args).jaxpr
    inputs = {*jaxpr.invars, *jaxpr.constvars}
    saved = {var for var in jaxpr.outvars if not isinstance(var, Literal)}
    return SavedBytes(
        sum(_bytes(var) for var in saved if var in inputs), sum(_bytes(var) for var in saved if var not in inputs)
    )


def _bytes(var: Any) -> int:
    return var.aval.size * var.aval.dtype.itemsize
