"""Layers of ``flax.nnx`` that compute by jaxbn, and `swap`, which changes the layers of a model that exists.

    import jaxbn.nnx
    print(jaxbn.nnx.swap(model))                    # in place: parameters and statistics stay where they are
    layer = jaxbn.nnx.Conv(16, 32, (3, 3), rngs=rngs)  # or from the start, in the place of nnx.Conv

The layers are subclasses of Flax's, with its constructors, parameters and state, so that checkpoints of the one load
into the other. Batch norm follows Flax's running averages; ``use_fast_variance`` is accepted and makes no difference,
because jaxbn's variance is accurate and fast. Flax must be installed (``pip install flax``).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxbn._conv.general import conv_general_dilated, lax_style_conv_transpose
from jaxbn._conv.original import lax_conv_general_dilated
from jaxbn._conv.patch import stand_in
from jaxbn._fused.batch_norm_act import batch_norm_act
from jaxbn._norm.batch_norm import batch_norm
from jaxbn._norm.inference import batch_norm_act_inference
from jaxbn._norm.running import RunningStats, update_running_stats
from jaxbn._swap import SwapReport

try:
    from flax import nnx
except ImportError:
    raise ImportError("jaxbn.nnx: Flax is not installed; pip install flax") from None

__all__ = ["BatchNorm", "Conv", "ConvTranspose", "SwapReport", "swap"]


class Conv(nnx.Conv):
    """``nnx.Conv``, computed by `jaxbn.conv_general_dilated`. The arguments are Flax's."""

    def __init__(self, *args: Any, conv_general_dilated: Callable[..., Any] = conv_general_dilated, **kwargs: Any):
        super().__init__(*args, conv_general_dilated=conv_general_dilated, **kwargs)


class ConvTranspose(nnx.ConvTranspose):
    """``nnx.ConvTranspose``, computed by `jaxbn.conv_general_dilated`. The arguments are Flax's.

    With circular padding Flax's own code computes the result, and a mask of the wrong shape is left to it to refuse.
    """

    def __call__(self, inputs: jax.Array) -> jax.Array:
        spatial = len(self.kernel_size)
        padding = self.padding
        is_circular = isinstance(padding, str) and padding.upper() not in ("SAME", "VALID")
        if is_circular or (self.mask is not None and self.mask.shape != self.kernel_shape):
            return super().__call__(inputs)
        kernel, bias = self.kernel[...], None if self.bias is None else self.bias[...]
        if self.mask is not None:
            kernel = kernel * self.mask
        inputs, kernel, bias = self.promote_dtype((inputs, kernel, bias), dtype=self.dtype)
        if not isinstance(padding, str):
            padding = [
                side if isinstance(side, (tuple, list)) else (side, side) for side in _per_axis(padding, spatial)
            ]
        y = lax_style_conv_transpose(
            inputs.reshape(-1, *inputs.shape[-spatial - 1 :]),
            kernel,
            _per_axis(self.strides, spatial),
            padding,
            _per_axis(self.kernel_dilation, spatial),
            transpose_kernel=self.transpose_kernel,
            precision=self.precision,
            preferred_element_type=self.preferred_element_type,
        )
        y = y if bias is None else y + jnp.expand_dims(bias, range(y.ndim - 1))
        return y.reshape(*inputs.shape[: -spatial - 1], *y.shape[1:])


class BatchNorm(nnx.BatchNorm):
    """``nnx.BatchNorm``, computed by `jaxbn.batch_norm_act` and `jaxbn.batch_norm_act_inference`.

    Args:
        *args, **kwargs: Flax's arguments.
        activation: An activation that follows, as in `jaxbn.batch_norm_act`.
        unbiased: Whether the running variance averages unbiased variances, as PyTorch's does. Flax's are biased.
    """

    def __init__(
        self, *args: Any, activation: Callable[[Any], jax.Array] | None = None, unbiased: bool = False, **kwargs: Any
    ):
        super().__init__(*args, **kwargs)
        self.activation, self.unbiased = activation, unbiased

    def __call__(
        self,
        x: jax.Array,
        use_running_average: bool | None = None,
        *,
        mask: jax.Array | None = None,
        residual: jax.Array | None = None,
    ) -> jax.Array:
        """Normalises as Flax does. ``residual`` is added before the activation."""
        if use_running_average is None:
            use_running_average = self.use_running_average
        if use_running_average is None:
            raise ValueError("BatchNorm: `use_running_average` is None; it must be True or False, here or in the layer")
        scale, bias = (None if each is None else each[...] for each in (self.scale, self.bias))
        x, mean, var, scale, bias = self.promote_dtype(
            (x, self.mean[...], self.var[...], scale, bias), dtype=self.dtype
        )
        residual = None if residual is None else residual.astype(x.dtype)
        common: dict[str, Any] = {"axis": self.axis, "epsilon": self.epsilon}
        devices: dict[str, Any] = {"axis_name": self.axis_name, "axis_index_groups": self.axis_index_groups}
        if not use_running_average:
            y, moments = (
                batch_norm_act(x, scale, bias, self.activation, residual=residual, **common, **devices)
                if mask is None
                else batch_norm(x, **common, **devices, where=mask)
            )
            self._update(moments)
            if mask is None:
                return y
            mean, var = moments.mean, moments.var  # Flax normalises the entries under the mask too.
        return batch_norm_act_inference(x, mean, var, scale, bias, self.activation, residual=residual, **common)

    def _update(self, moments: Any) -> None:
        moments = jax.lax.stop_gradient(moments)
        running = RunningStats(self.mean[...], self.var[...], jnp.zeros_like(moments.count))
        new = update_running_stats(running, moments, momentum=1 - self.momentum, unbiased=self.unbiased)
        self.mean[...], self.var[...] = new.mean.astype(self.mean[...].dtype), new.var.astype(self.var[...].dtype)


SWAPS: dict[type, type] = {nnx.Conv: Conv, nnx.ConvTranspose: ConvTranspose, nnx.BatchNorm: BatchNorm}


def swap(model: nnx.Module) -> SwapReport:
    """Makes the convolutions and batch norms of a Flax model compute by jaxbn, in place.

    Parameters, statistics and the layers themselves stay the same objects, so that an optimizer that holds them goes
    on.

    Args:
        model: The model, or a single layer.

    Returns:
        What was replaced, and what was left and why.

    Raises:
        TypeError: ``model`` is not a module of ``flax.nnx``.
        ValueError: There is no convolution or batch norm of ``flax.nnx`` in it.

    Example:
        >>> import jaxbn
        >>> from flax import nnx
        >>> model = nnx.Sequential(nnx.Conv(3, 8, (3, 3), rngs=nnx.Rngs(0)), nnx.BatchNorm(8, rngs=nnx.Rngs(0)))
        >>> print(jaxbn.nnx.swap(model))
        2 layers compute by jaxbn: layers.0, layers.1
    """
    if not isinstance(model, nnx.Module):
        raise TypeError(f"swap: `model` is of type {type(model).__name__}; it must be a module of flax.nnx")
    replaced, left = [], {}
    for path, layer in nnx.iter_modules(model):
        name = ".".join(map(str, path)) or "the model itself"
        if isinstance(layer, tuple(SWAPS.values())):
            left[name] = "which computes by jaxbn already"
        elif type(layer) in SWAPS:
            known = (lax_conv_general_dilated, stand_in, conv_general_dilated)
            if isinstance(layer, nnx.Conv) and layer.conv_general_dilated not in known:
                left[name] = "which has a convolution of its own"
                continue
            layer.__class__ = SWAPS[type(layer)]
            if isinstance(layer, Conv):
                layer.conv_general_dilated = conv_general_dilated
            if isinstance(layer, BatchNorm):
                layer.activation, layer.unbiased = None, False
            replaced.append(name)
        elif isinstance(layer, tuple(SWAPS)):
            left[name] = f"a {type(layer).__name__}, which may compute in its own way"
    if not replaced and not left:
        raise ValueError(
            "swap: `model` has no Conv, ConvTranspose or BatchNorm of flax.nnx; there is nothing to replace"
        )
    return SwapReport(tuple(replaced), left)


def _per_axis(value: Any, spatial: int) -> tuple[Any, ...]:
    value = 1 if value is None else value
    return (value,) * spatial if isinstance(value, int) else tuple(value)
