"""Sums over everything but the channels, and vectors of channels against whole arrays."""

import jax
import jax.numpy as jnp
import numpy as np


def wide_dtype(dtype: np.dtype) -> np.dtype:
    """At least float32, in which statistics and sums are computed."""
    return np.dtype(np.float32) if jnp.finfo(dtype).bits < 32 else dtype


def widened(x: jax.Array) -> jax.Array:
    return x.astype(wide_dtype(x.dtype))


def channel_sum(x: jax.Array, axis: int = -1) -> jax.Array:
    """``Σ x`` over every axis but ``axis``, in at least float32.

    The first axis is summed before the rest: its sum runs along whole rows of memory, which XLA's CPU compiler turns
    into vector instructions, and partial sums of few terms lose fewer digits than one long one.
    """
    x = widened(x)
    axis = axis % x.ndim
    first, *rest = (other for other in range(x.ndim) if other != axis)
    return x.sum(first, keepdims=True).sum(rest, keepdims=True).reshape(-1)


def along_channels(vector: jax.Array, like: jax.Array, axis: int = -1) -> jax.Array:
    """``vector`` with axes of length one, such that it broadcasts along ``axis`` of ``like``, in ``like``'s dtype."""
    axis = axis % like.ndim
    return vector.astype(like.dtype).reshape([-1 if other == axis else 1 for other in range(like.ndim)])
