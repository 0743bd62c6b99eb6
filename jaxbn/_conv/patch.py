"""jaxbn's convolution in the place of JAX's own, for the whole process."""

import sys
from collections.abc import Callable
from functools import wraps
from types import ModuleType
from typing import Any

import jax
from jax import lax

from jaxbn._conv.general import conv_general_dilated
from jaxbn._conv.original import lax_conv_general_dilated


@wraps(conv_general_dilated)
def stand_in(*args: Any, **kwargs: Any) -> jax.Array:
    """A function of its own, so that `unpatch_jax` changes nobody who imported `jaxbn.conv_general_dilated`."""
    return conv_general_dilated(*args, **kwargs)


def patch_jax() -> None:
    """Puts `conv_general_dilated` in the place of `jax.lax.conv_general_dilated`, for the whole process.

    From then on Flax's layers, Equinox's, Haiku's, `jax.scipy.signal`, `jax.numpy.convolve` and `jax.lax`'s other
    convolutions, such as `jax.lax.conv_transpose`, run on jaxbn's maps when they are called, with jaxbn's gradients. It
    clears JAX's caches, so that functions that are compiled already are compiled again. A second call does nothing.

    Not reached are the layers of ``flax.nnx`` that exist already, because each holds JAX's function as an attribute
    (`jaxbn.nnx.swap` changes them); whatever else holds it under another name; and programs that are compiled by hand
    or exported. Operands of integers, more than three spatial axes and ``out_sharding`` are left to JAX.

    Example:
        >>> import jax, jax.numpy as jnp, jaxbn
        >>> jaxbn.patch_jax()
        >>> "convolve[" in str(jax.make_jaxpr(jnp.convolve)(jnp.ones(5), jnp.ones(3)))
        True
        >>> jaxbn.unpatch_jax()
    """
    _replace(stand_in)


def unpatch_jax() -> None:
    """Takes `patch_jax` back: `jax.lax.conv_general_dilated` is JAX's own again. JAX's caches are cleared.

    Layers of ``flax.nnx`` that were made in between keep jaxbn's.

    Example:
        >>> import jax, jax.numpy as jnp, jaxbn
        >>> jaxbn.patch_jax()
        >>> jaxbn.unpatch_jax()
        >>> "convolve[" in str(jax.make_jaxpr(jnp.convolve)(jnp.ones(5), jnp.ones(3)))
        False
    """
    _replace(lax_conv_general_dilated)


def _replace(function: Callable[..., Any]) -> None:
    current = lax.conv_general_dilated
    if current is function:
        return
    # JAX's own modules hold it too, and call each their own.
    for module in list(sys.modules.values()):
        is_another_s = isinstance(module, ModuleType) and module.__name__.partition(".")[0] != "jaxbn"
        if is_another_s and vars(module).get("conv_general_dilated") is current:
            vars(module)["conv_general_dilated"] = function
    nnx: Any = sys.modules.get("flax.nnx")
    defaults = None if nnx is None else nnx.Conv.__init__.__kwdefaults__
    if defaults and "conv_general_dilated" in defaults:  # Its layers get JAX's function as the default of an argument.
        defaults["conv_general_dilated"] = function
    jax.clear_caches()
