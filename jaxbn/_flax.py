"""Computations that the layers of ``flax.nnx`` and ``flax.linen`` share; the attributes have the same names in both."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxbn._conv.general import lax_style_conv_transpose
from jaxbn._fused.batch_norm_act import batch_norm_act
from jaxbn._norm.batch_norm import batch_norm
from jaxbn._norm.inference import batch_norm_act_inference
from jaxbn._norm.running import RunningStats, average, unbiased_variance
from jaxbn._norm.statistics import Moments


def is_left_to_flax(layer: Any, kernel_shape: tuple[int, ...]) -> bool:
    """Whether Flax's own code must compute a transposed convolution: circular padding, or a mask that Flax refuses."""
    is_circular = isinstance(layer.padding, str) and layer.padding not in ("SAME", "VALID")
    return is_circular or (layer.mask is not None and layer.mask.shape != kernel_shape)


def transposed_convolution(layer: Any, x: jax.Array, kernel: jax.Array, bias: jax.Array | None) -> jax.Array:
    """Compute the transposed convolution of a layer. The operands have one dtype."""
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


def is_normalised_by_flax(layer: Any, x: Any, *, axis_name: Any, residual: Any) -> bool:
    """Whether Flax's own code must normalise: complex or empty arrays, several axes of channels, or a single example.

    If the layer has options that Flax does not have, jaxbn's code raises an error instead.
    """
    has_options = residual is not None or layer.activation is not None or layer.unbiased or layer.momentum is None
    is_one_example = jnp.ndim(x) == 1 and axis_name is None
    is_other = not isinstance(layer.axis, (int, np.integer)) or jnp.size(x) == 0
    return not has_options and (jnp.iscomplexobj(x) or is_one_example or is_other)


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
    """Compute the output of a layer of batch norm in ``dtype``, and the running statistics after it.

    ``x`` is normalised in its own dtype or in ``dtype``, whichever is wider.
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
        running = _with_batch(layer, running, jax.lax.stop_gradient(moments))
        if mask is None:
            return y.astype(dtype), running
        mean, var, _ = moments  # Flax normalises the entries that the mask leaves out too.
    y = batch_norm_act_inference(x, mean, var, gamma, beta, layer.activation, residual=residual, **common)
    return y.astype(dtype), running


def _with_batch(layer: Any, running: RunningStats, moments: Moments) -> RunningStats:
    """Update the running averages by a batch as Flax does, even by a batch of one value."""
    updates = running.updates + 1
    weight = 1 / updates.astype(moments.mean.dtype) if layer.momentum is None else 1 - layer.momentum
    var = unbiased_variance(moments) if layer.unbiased else moments.var
    return RunningStats(average(running.mean, moments.mean, weight), average(running.var, var, weight), updates)


def _per_axis(value: Any, spatial: int) -> tuple[Any, ...]:
    value = 1 if value is None else value
    return (value,) * spatial if isinstance(value, (int, np.integer)) else tuple(value)


def _padding(padding: Any, spatial: int) -> Any:
    if isinstance(padding, str):
        return padding
    return [side if isinstance(side, (tuple, list)) else (side, side) for side in _per_axis(padding, spatial)]
