"""Checks that every operation makes of its arguments, with one form of message.

``function: `argument` is what came; what is wanted``
"""

import math
import operator
from typing import Any

import jax
import jax.numpy as jnp

DTYPES = ("float64", "float32", "bfloat16", "float16")
MAY_BE_LEFT_OUT = ("gamma", "beta", "bias", "where")


def as_arrays(function: str, **arguments: Any) -> tuple[Any, ...]:
    """The arguments as arrays; those that may be left out stay ``None``. Raises ``TypeError`` for what is no array."""
    return tuple(
        None if value is None and argument in MAY_BE_LEFT_OUT else as_array(function, argument, value)
        for argument, value in arguments.items()
    )


def as_array(function: str, argument: str, value: Any) -> jax.Array:
    # What is an array stays itself: `jnp.asarray` would copy it under differentiation, and the copy be saved.
    if isinstance(value, jax.Array):
        return value
    try:
        return jnp.asarray(value)
    except (TypeError, ValueError):
        raise TypeError(f"{function}: `{argument}` is {value!r}; it must be an array") from None


def require_floating(function: str, argument: str, dtype: Any) -> None:
    """Raises ``TypeError`` unless ``dtype`` is one of those that the operations are made for and tested in."""
    try:
        name = jnp.dtype(dtype).name
    except TypeError:
        name = repr(dtype)
    if name not in DTYPES:
        raise TypeError(f"{function}: `{argument}` has dtype {name}; it must be one of {', '.join(DTYPES)}")


def require_vector(function: str, argument: str, array: Any, length: int, meaning: str) -> None:
    """Raises unless ``array`` is a floating-point vector with an entry for each of ``length`` channels."""
    require_floating(function, argument, array.dtype)
    if array.shape != (length,):
        raise ValueError(f"{function}: `{argument}` has shape {array.shape}; it must be ({length},), {meaning}")


def as_integer(function: str, argument: str, value: Any, *, least: int | None = None) -> int:
    """``value`` as an ``int``; raises ``TypeError`` if it is none and ``ValueError`` if it is below ``least``."""
    try:
        integer = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        integer = None
    if integer is None:
        raise TypeError(f"{function}: `{argument}` is {value!r}; it must be an int")
    if least is not None and integer < least:
        raise ValueError(f"{function}: `{argument}` is {integer}; it must be at least {least}")
    return integer


def as_positive(function: str, argument: str, value: Any, dtype: Any) -> float:
    """``value`` as a ``float`` that is finite and above zero in ``dtype``; it is static, so it is no traced array."""
    try:
        number = float(value)
    except (TypeError, ValueError):  # a tracer's error is a TypeError too
        raise TypeError(
            f"{function}: `{argument}` is {value!r}; it must be a number that is known when traced"
        ) from None
    smallest = float(jnp.finfo(dtype).tiny)
    if not smallest <= number < math.inf:
        raise ValueError(
            f"{function}: `{argument}` is {value!r}; it must be positive and finite, at least {smallest:.3g} in {dtype}"
        )
    return number
