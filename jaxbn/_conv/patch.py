"""Replaces JAX's convolution by jaxbn's, for the whole process."""

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
    """A separate function, so that `unpatch_jax` changes no module that imported `jaxbn.conv_general_dilated`."""
    return conv_general_dilated(*args, **kwargs)


def patch_jax() -> None:
    """Replaces `jax.lax.conv_general_dilated` by `conv_general_dilated`, for the whole process.

    From then on the layers of Flax, Equinox and Haiku, `jax.scipy.signal`, `jax.numpy.convolve` and the other
    convolutions of `jax.lax`, such as `jax.lax.conv_transpose`, run on jaxbn's maps, with jaxbn's gradients. JAX's
    caches are cleared, so that functions that are already compiled are compiled again. A second call does nothing.

    Layers of ``flax.nnx`` that already exist keep JAX's function, because they hold it as an attribute
    (`jaxbn.nnx.swap` changes them). So does code that holds it under another name, and so do programs that are compiled
    by hand or exported. JAX itself computes integers, more than three spatial axes, and calls with ``out_sharding``.

    Example:
        >>> import jax, jax.numpy as jnp, jaxbn
        >>> jaxbn.patch_jax()
        >>> "convolve[" in str(jax.make_jaxpr(jnp.convolve)(jnp.ones(5), jnp.ones(3)))
        True
        >>> jaxbn.unpatch_jax()
    """
    _replace(stand_in)


def unpatch_jax() -> None:
    """Undoes `patch_jax`: `jax.lax.conv_general_dilated` is JAX's own function again. JAX's caches are cleared.

    Layers of ``flax.nnx`` that were made in between keep jaxbn's function.

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
    # JAX's own modules hold the function under this name too, and call it there.
    for module in list(sys.modules.values()):
        is_another_s = isinstance(module, ModuleType) and module.__name__.partition(".")[0] != "jaxbn"
        if is_another_s and vars(module).get("conv_general_dilated") is current:
            vars(module)["conv_general_dilated"] = function
    nnx: Any = sys.modules.get("flax.nnx")
    defaults = None if nnx is None else nnx.Conv.__init__.__kwdefaults__
    if defaults and "conv_general_dilated" in defaults:  # The layers get JAX's function as the default of an argument.
        defaults["conv_general_dilated"] = function
    jax.clear_caches()
