"""Checks that every operation makes of its arguments, with one form of message.

function: `argument` is what came; what is wanted
"""

import operator
from typing import Any

import jax
import jax.numpy as jnp


def as_optional_array(value: Any) -> jax.Array | None:
    return None if value is None else jnp.asarray(value)


def require_floating(function: str, argument: str, array: Any) -> None:
    """Raises ``TypeError`` unless ``array`` holds real floating-point numbers."""
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{function}: `{argument}` has dtype {array.dtype}; it must be a real floating-point dtype")


def require_vector(function: str, argument: str, array: Any, length: int, meaning: str) -> None:
    """Raises unless ``array`` is a floating-point vector with an entry for each of ``length`` channels."""
    require_floating(function, argument, array)
    if array.shape != (length,):
        raise ValueError(f"{function}: `{argument}` has shape {array.shape}; it must be ({length},), {meaning}")


def as_integer(function: str, argument: str, value: Any, *, least: int | None = None) -> int:
    """``value`` as an ``int``; raises ``TypeError`` if it is none and ``ValueError`` if it is below ``least``."""
    try:
        integer = operator.index(value)
    except TypeError:
        raise TypeError(f"{function}: `{argument}` is {value!r}; it must be an int") from None
    if least is not None and integer < least:
        raise ValueError(f"{function}: `{argument}` is {integer}; it must be at least {least}")
    return integer
