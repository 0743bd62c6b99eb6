"""What the layers of ``flax.nnx`` and of ``flax.linen`` compute alike; their attributes have the same names in both."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxbn._conv.general import lax_style_conv_transpose
from jaxbn._fused.batch_norm_act import batch_norm_act
from jaxbn._norm.batch_norm import batch_norm
from jaxbn._norm.inference import batch_norm_act_inference
from jaxbn._norm.running import RunningStats, update_running_stats


def is_left_to_flax(layer: Any, kernel_shape: tuple[int, ...]) -> bool:
    """A transposed convolution with circular padding, or with a mask of a wrong shape, which Flax refuses."""
    is_circular = isinstance(layer.padding, str) and layer.padding not in ("SAME", "VALID")
    return is_circular or (layer.mask is not None and layer.mask.shape != kernel_shape)


def transposed_convolution(layer: Any, x: jax.Array, kernel: jax.Array, bias: jax.Array | None) -> jax.Array:
    """Of operands of one dtype, by the strides, dilation, padding and precision of the layer."""
    spatial = kernel.ndim - 2
    batch, image = x.shape[: -spatial - 1], x.shape[-spatial - 1 :]
    y = lax_style_conv_transpose(
        x.reshape(-1, *image),
        kernel,
        _per_axis(layer.strides, spatial),
        _padding(layer.padding, spatial),
        _per_axis(layer.kernel_dilation, spatial),
        transpose_kernel=layer.transpose_kernel,
        precision=layer.precision,
        preferred_element_type=layer.preferred_element_type,
    )
    y = y if bias is None else y + jnp.expand_dims(bias, range(y.ndim - 1))
    return y.reshape(*batch, *y.shape[1:])


def is_complex(layer: Any, x: Any) -> bool:
    """Complex numbers are left to Flax, unless the layer has options that Flax does not have."""
    is_flaxs = layer.activation is None and layer.momentum is not None and not layer.unbiased
    return jnp.iscomplexobj(x) and is_flaxs


def normalise(
    layer: Any,
    x: jax.Array,
    gamma: jax.Array | None,
    beta: jax.Array | None,
    running: RunningStats,
    *,
    dtype: Any,
    axis: int,
    axis_name: Any,
    use_running_average: bool,
    mask: jax.Array | None,
    residual: jax.Array | None,
) -> tuple[jax.Array, RunningStats]:
    """The output of a layer of batch norm in ``dtype``, and the running statistics after it.

    As in Flax, ``x`` is not rounded to a narrower ``dtype`` before it is normalised.
    """
    x = x.astype(jnp.promote_types(x.dtype, dtype))
    residual = None if residual is None else residual.astype(x.dtype)
    common: dict[str, Any] = {"axis": axis, "epsilon": layer.epsilon}
    devices: dict[str, Any] = {"axis_name": axis_name, "axis_index_groups": layer.axis_index_groups}
    mean, var, _ = running
    if not use_running_average:
        y, moments = (
            batch_norm_act(x, gamma, beta, layer.activation, residual=residual, **common, **devices)
            if mask is None
            else batch_norm(x, **common, **devices, where=mask)
        )
        momentum = None if layer.momentum is None else 1 - layer.momentum
        running = update_running_stats(running, moments, momentum=momentum, unbiased=layer.unbiased)
        if mask is None:
            return y.astype(dtype), running
        mean, var, _ = moments  # Flax normalises the entries under the mask too.
    y = batch_norm_act_inference(x, mean, var, gamma, beta, layer.activation, residual=residual, **common)
    return y.astype(dtype), running


def _per_axis(value: Any, spatial: int) -> tuple[Any, ...]:
    value = 1 if value is None else value
    return (value,) * spatial if isinstance(value, (int, np.integer)) else tuple(value)


def _padding(padding: Any, spatial: int) -> Any:
    if isinstance(padding, str):
        return padding
    return [side if isinstance(side, (tuple, list)) else (side, side) for side in _per_axis(padding, spatial)]
