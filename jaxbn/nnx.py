"""Layers of ``flax.nnx`` that compute by jaxbn, and `swap`, which changes the layers of an existing model.

    import jaxbn.nnx
    print(jaxbn.nnx.swap(model))                    # in place: parameters and statistics stay where they are
    layer = jaxbn.nnx.Conv(16, 32, (3, 3), rngs=rngs)  # or from the start, in place of nnx.Conv

The layers are subclasses of Flax's, with its constructors, parameters and state, so that checkpoints of either load
into the other. Batch norm follows Flax's running averages; ``use_fast_variance`` is accepted and makes no difference,
because jaxbn's variance is accurate and fast. Flax must be installed (``pip install flax``).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxbn._conv.general import conv_general_dilated
from jaxbn._conv.original import lax_conv_general_dilated
from jaxbn._conv.patch import stand_in
from jaxbn._flax import is_left_to_flax, is_normalised_by_flax, normalise, transposed_convolution
from jaxbn._norm.running import RunningStats
from jaxbn._swap import SwapReport, reason_to_leave

try:
    from flax import nnx
except ImportError:
    raise ImportError("jaxbn.nnx: Flax is not installed; pip install flax") from None

from flax.nnx.nn.dtypes import canonicalize_dtype

__all__ = ["BatchNorm", "Conv", "ConvTranspose", "SwapReport", "swap"]


class Conv(nnx.Conv):
    """``nnx.Conv``, computed by `jaxbn.conv_general_dilated`. The arguments are Flax's."""

    def __init__(self, *args: Any, conv_general_dilated: Callable[..., Any] = conv_general_dilated, **kwargs: Any):
        super().__init__(*args, conv_general_dilated=conv_general_dilated, **kwargs)


class ConvTranspose(nnx.ConvTranspose):
    """``nnx.ConvTranspose``, computed by `jaxbn.conv_general_dilated`. The arguments are Flax's.

    Flax's own code computes circular padding, and raises its error for a mask of the wrong shape.
    """

    def __call__(self, inputs: jax.Array) -> jax.Array:
        if is_left_to_flax(self, self.kernel_shape):
            return super().__call__(inputs)
        kernel, bias = self.kernel[...], None if self.bias is None else self.bias[...]
        kernel = kernel if self.mask is None else kernel * self.mask
        return transposed_convolution(self, *self.promote_dtype((inputs, kernel, bias), dtype=self.dtype))


class BatchNorm(nnx.BatchNorm):
    """``nnx.BatchNorm``, computed by `jaxbn.batch_norm_act` and `jaxbn.batch_norm_act_inference`.

    Flax's own code normalises complex or empty arrays and a single example. Forward mode (`jax.jvp`) does not work
    through the layer.

    Args:
        num_features, kwargs: Flax's arguments.
        momentum: The weight of the old statistics, as in Flax; ``None`` gives all batches the same weight, and counts
            them in ``updates``, next to the statistics.
        activation: An activation to apply to the result, as in `jaxbn.batch_norm_act`.
        unbiased: Whether the running variance averages unbiased variances, as in PyTorch. Flax averages biased ones.
    """

    updates: nnx.BatchStat | None

    def __init__(
        self,
        num_features: int,
        *,
        momentum: float | None = 0.99,
        activation: Callable[[Any], jax.Array] | None = None,
        unbiased: bool = False,
        **kwargs: Any,
    ):
        super().__init__(num_features, momentum=momentum, **kwargs)  # pyright: ignore[reportArgumentType]
        self.activation, self.unbiased = activation, unbiased
        self.updates = nnx.BatchStat(jnp.zeros(num_features, jnp.int32)) if momentum is None else None

    def __call__(
        self,
        x: jax.Array,
        use_running_average: bool | None = None,
        *,
        mask: jax.Array | None = None,
        residual: jax.Array | None = None,
    ) -> jax.Array:
        """Normalises as Flax does. ``residual`` is added before the activation."""
        if is_normalised_by_flax(self, x, axis_name=self.axis_name, residual=residual):
            return super().__call__(x, use_running_average, mask=mask)
        if use_running_average is None:
            use_running_average = self.use_running_average
        if use_running_average is None:
            raise ValueError("BatchNorm: `use_running_average` is None; it must be True or False, here or in the layer")
        if self.momentum is None and self.updates is None:
            raise ValueError(
                "BatchNorm: `momentum` was set to None after the layer was made; give it to the constructor"
            )
        mean, var = self.mean[...], self.var[...]
        gamma, beta, updates = (None if each is None else each[...] for each in (self.scale, self.bias, self.updates))
        x, _, _, *vectors = self.promote_dtype((x, mean, var, gamma, beta), dtype=self.dtype)
        y, new = normalise(
            self,
            x,
            gamma,
            beta,
            RunningStats(mean, var, jnp.zeros(self.num_features, jnp.int32) if updates is None else updates),
            dtype=canonicalize_dtype(x, *vectors, dtype=self.dtype),
            axis=self.axis,
            axis_name=self.axis_name,
            use_running_average=use_running_average,
            mask=mask,
            residual=residual,
        )
        if not use_running_average:
            self.mean[...], self.var[...] = new.mean, new.var
            if self.updates is not None:
                self.updates[...] = new.updates
        return y


SWAPS: dict[type, type] = {nnx.Conv: Conv, nnx.ConvTranspose: ConvTranspose, nnx.BatchNorm: BatchNorm}


def swap(model: nnx.Module) -> SwapReport:
    """Makes the convolutions and batch norms of a Flax model compute by jaxbn, in place.

    Parameters, statistics and the layers themselves stay the same objects, so that an optimizer that holds them keeps
    working. Functions that `jax.jit` has compiled with the model in their closure, and stored methods of layers, keep
    Flax's code: swap first.

    Args:
        model: The model, or a single layer.

    Returns:
        A `SwapReport`: the layers that were replaced, and those that were left, with the reasons.

    Raises:
        TypeError: ``model`` is not a module of ``flax.nnx``.
        ValueError: ``model`` has no convolution or batch norm of ``flax.nnx``.

    Example:
        >>> import jaxbn
        >>> from flax import nnx
        >>> model = nnx.Sequential(nnx.Conv(3, 8, (3, 3), rngs=nnx.Rngs(0)), nnx.BatchNorm(8, rngs=nnx.Rngs(0)))
        >>> print(jaxbn.nnx.swap(model))
        2 layers compute by jaxbn: layers.0, layers.1
    """
    if not isinstance(model, nnx.Module):
        raise TypeError(
            f"swap: `model` is of type {type(model).__name__}; it must be a module of flax.nnx, one for each call"
        )
    replaced, left = [], {}
    for path, layer in nnx.iter_modules(model):
        name = ".".join(map(str, path)) or "the model itself"
        reason = reason_to_leave(layer, SWAPS)
        known = (lax_conv_general_dilated, stand_in, conv_general_dilated)
        if type(layer) is nnx.Conv and layer.conv_general_dilated not in known:
            reason = "its argument `conv_general_dilated` is another function"
        if reason is not None:
            left[name] = reason
        elif type(layer) in SWAPS:
            layer.__class__ = SWAPS[type(layer)]
            if isinstance(layer, Conv):
                layer.conv_general_dilated = conv_general_dilated
            if isinstance(layer, BatchNorm):
                layer.activation, layer.unbiased, layer.updates = None, False, None
            replaced.append(name)
    if not replaced and not left:
        raise ValueError(
            "swap: `model` has no Conv, ConvTranspose or BatchNorm of flax.nnx; there is nothing to replace"
        )
    return SwapReport(tuple(replaced), left)
