"""Modules of Haiku that compute by jaxbn.

    import jaxbn.haiku as hk_jaxbn
    hk_jaxbn.Conv2D(16, 3)          # in place of hk.Conv2D
    hk_jaxbn.BatchNorm(True, True, 0.9, activation=jax.nn.relu)

The modules are subclasses of Haiku's, with its constructors, default names, parameters and state, so that checkpoints
of either load into the other. Set policies of ``hk.mixed_precision`` for jaxbn's classes; one that is set for
``hk.Conv2D`` does not apply to them. Haiku must be installed (``pip install dm-haiku``).
"""

import inspect
from collections.abc import Callable
from functools import partial
from types import FunctionType, SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxbn._channels import along_axis, widened
from jaxbn._conv.general import conv_general_dilated, lax_style_conv_transpose
from jaxbn._fused.batch_norm_act import batch_norm_act
from jaxbn._norm.inference import batch_norm_act_inference
from jaxbn._norm.running import average, unbiased_variance

try:
    import haiku as hk
except ImportError:
    raise ImportError("jaxbn.haiku: Haiku is not installed; pip install dm-haiku") from None

__all__ = [
    "BatchNorm",
    "Conv1D",
    "Conv1DTranspose",
    "Conv2D",
    "Conv2DTranspose",
    "Conv3D",
    "Conv3DTranspose",
    "ConvND",
    "ConvNDTranspose",
    "DepthwiseConv1D",
    "DepthwiseConv2D",
    "DepthwiseConv3D",
]

_LAX = SimpleNamespace(
    **{**vars(lax), "conv_general_dilated": conv_general_dilated, "conv_transpose": lax_style_conv_transpose}
)


def _by_jaxbn(method: Any) -> Any:
    """Copy a function of Haiku, so that the name ``lax`` in it means `_LAX`. Haiku's own function does not change."""
    original = inspect.unwrap(method)
    names = {**original.__globals__, "lax": _LAX}
    function = FunctionType(original.__code__, names, None, original.__defaults__, original.__closure__)
    function.__kwdefaults__ = original.__kwdefaults__
    return function


class ConvND(hk.ConvND):
    """``hk.ConvND``, computed by `jaxbn.conv_general_dilated`. The arguments are Haiku's, as in the other modules.

    Example:
        >>> import haiku as hk, jax, jax.numpy as jnp, jaxbn
        >>> network = hk.transform(lambda x: jaxbn.haiku.Conv2D(4, kernel_shape=3)(x))
        >>> params = network.init(jax.random.key(0), jnp.ones((1, 8, 8, 3)))
        >>> params["conv2_d"]["w"].shape
        (3, 3, 3, 4)
    """

    __call__ = _by_jaxbn(hk.ConvND.__call__)


class Conv1D(hk.Conv1D, ConvND):
    """``hk.Conv1D``, computed by `jaxbn.conv_general_dilated`."""


class Conv2D(hk.Conv2D, ConvND):
    """``hk.Conv2D``, computed by `jaxbn.conv_general_dilated`."""


class Conv3D(hk.Conv3D, ConvND):
    """``hk.Conv3D``, computed by `jaxbn.conv_general_dilated`."""


class ConvNDTranspose(hk.ConvNDTranspose):
    """``hk.ConvNDTranspose``, computed by `jaxbn.conv_general_dilated`. The arguments are Haiku's."""

    __call__ = _by_jaxbn(hk.ConvNDTranspose.__call__)


class Conv1DTranspose(hk.Conv1DTranspose, ConvNDTranspose):
    """``hk.Conv1DTranspose``, computed by `jaxbn.conv_general_dilated`."""


class Conv2DTranspose(hk.Conv2DTranspose, ConvNDTranspose):
    """``hk.Conv2DTranspose``, computed by `jaxbn.conv_general_dilated`."""


class Conv3DTranspose(hk.Conv3DTranspose, ConvNDTranspose):
    """``hk.Conv3DTranspose``, computed by `jaxbn.conv_general_dilated`."""


class DepthwiseConv1D(hk.DepthwiseConv1D):
    """``hk.DepthwiseConv1D``, computed by `jaxbn.conv_general_dilated`."""

    __call__ = _by_jaxbn(hk.DepthwiseConv1D.__call__)


class DepthwiseConv2D(hk.DepthwiseConv2D):
    """``hk.DepthwiseConv2D``, computed by `jaxbn.conv_general_dilated`."""

    __call__ = _by_jaxbn(hk.DepthwiseConv2D.__call__)


class DepthwiseConv3D(hk.DepthwiseConv3D):
    """``hk.DepthwiseConv3D``, computed by `jaxbn.conv_general_dilated`."""

    __call__ = _by_jaxbn(hk.DepthwiseConv3D.__call__)


class BatchNorm(hk.BatchNorm):
    """``hk.BatchNorm``, computed by `jaxbn.batch_norm_act` and `jaxbn.batch_norm_act_inference`.

    Haiku's own code normalises if ``axis`` leaves more than one axis or has negative entries, or if ``inputs`` are
    empty, a single example or not real floating numbers. Forward mode (`jax.jvp`) does not work through the module.

    Args:
        *args, **kwargs: Haiku's arguments. ``decay_rate=None`` gives all batches the same weight in the running
            averages. Haiku's ``BatchNorm`` can use these averages in inference.
        activation: An activation to apply to the result, as in `jaxbn.batch_norm_act`.
        unbiased: Whether the running variance averages unbiased variances, as in PyTorch. Haiku averages biased ones.

    Example:
        >>> import haiku as hk, jax, jax.numpy as jnp, jaxbn
        >>> def network(x, is_training):
        ...     return jaxbn.haiku.BatchNorm(True, True, decay_rate=None, activation=jax.nn.relu)(x, is_training)
        >>> network = hk.transform_with_state(network)
        >>> x = jnp.array([[1.0, 10.0], [3.0, 30.0]])
        >>> params, state = network.init(None, x, is_training=True)
        >>> y, state = network.apply(params, state, None, x, is_training=True)
        >>> print(y.round(3), state["batch_norm/~/mean_ema"]["average"])
        [[0. 0.]
         [1. 1.]] [[ 2. 20.]]
    """

    def __init__(
        self, *args: Any, activation: Callable[[Any], jax.Array] | None = None, unbiased: bool = False, **kwargs: Any
    ):
        super().__init__(*args, **kwargs)
        self.activation, self.unbiased = activation, unbiased
        if self.mean_ema.decay is None:  # New modules would not get the same names.
            self.mean_ema.__class__ = self.var_ema.__class__ = _PlainAverage

    def __call__(
        self,
        inputs: jax.Array,
        is_training: bool,
        test_local_stats: bool = False,
        scale: Any = None,
        offset: Any = None,
        *,
        residual: jax.Array | None = None,
    ) -> jax.Array:
        """Normalises as Haiku does.

        Args:
            inputs, is_training, test_local_stats, scale, offset: Haiku's arguments.
            residual: An array of the shape of ``inputs`` that is added before the activation.

        Returns:
            An array of the shape of ``inputs``, in the dtype of Haiku's result.

        Raises:
            ValueError: As in Haiku; or ``unbiased`` is True and Haiku's own code would have to normalise.
            TypeError, ValueError: As in `jaxbn.batch_norm_act`.
        """
        axis = _channel_axis(self, inputs)
        is_given_twice = (self.create_scale and scale is not None) or (self.create_offset and offset is not None)
        if axis is None and self.unbiased:
            raise ValueError(
                f"BatchNorm: `inputs` has dtype {inputs.dtype} and shape {inputs.shape}, and `axis` is {self.axis}; "
                "with `unbiased=True` they must be real floating numbers, and `axis` None or all axes but one, from 0"
            )
        if axis is None or is_given_twice:  # Haiku raises its error for the second.
            return _finish(self, super().__call__(inputs, is_training, test_local_stats, scale, offset), residual)
        shape = tuple(size if each == axis else 1 for each, size in enumerate(inputs.shape))
        if self.create_scale:
            scale = hk.get_parameter("scale", shape, inputs.dtype, self.scale_init)
        if self.create_offset:
            offset = hk.get_parameter("offset", shape, inputs.dtype, self.offset_init)
        given = [each for each in (scale, offset) if each is not None]
        x = inputs.astype(jnp.result_type(inputs, *given))
        normalise = partial(_normalise, self, x, axis, inputs.dtype, is_training, test_local_stats)
        if any(jnp.broadcast_shapes(jnp.shape(each), shape) != shape for each in given):
            y = normalise(None, None)
            return _finish(self, y * (1 if scale is None else scale) + (0 if offset is None else offset), residual)
        gamma, beta = (
            None if each is None else jnp.broadcast_to(jnp.asarray(each, x.dtype), shape).reshape(-1)
            for each in (scale, offset)
        )
        return normalise(gamma, beta, self.activation, residual)


# These are functions, because Haiku's dtype policies and interceptors would act on methods.


def _channel_axis(layer: BatchNorm, inputs: jax.Array) -> int | None:
    """The channels' axis, over which no statistics are taken; None if Haiku's own code must normalise."""
    rank = inputs.ndim
    is_one_example = rank == 1 and not layer.cross_replica_axis
    if rank == 0 or is_one_example or inputs.size == 0 or not jnp.issubdtype(inputs.dtype, jnp.floating):
        return None
    if layer.axis is None:
        return layer.channel_index % rank
    kept = set(range(rank)).difference(layer.axis)
    return kept.pop() if len(kept) == 1 and len(layer.axis) == rank - 1 else None


def _normalise(
    layer: BatchNorm,
    x: jax.Array,
    axis: int,
    dtype: Any,
    is_training: bool,
    test_local_stats: bool,
    gamma: jax.Array | None,
    beta: jax.Array | None,
    activation: Callable[[Any], jax.Array] | None = None,
    residual: jax.Array | None = None,
) -> jax.Array:
    """Compute ``y``; in training, also update the running averages by moments in ``dtype``."""
    residual = None if residual is None else residual.astype(x.dtype)
    common: dict[str, Any] = {"residual": residual, "axis": axis, "epsilon": layer.eps}
    if not (is_training or test_local_stats):
        mean, var = (ema.average.reshape(-1) for ema in (layer.mean_ema, layer.var_ema))
        return batch_norm_act_inference(x, mean, var, gamma, beta, activation, **common)
    names, groups = layer.cross_replica_axis or None, layer.cross_replica_axis_index_groups
    y, moments = batch_norm_act(x, gamma, beta, activation, axis_name=names, axis_index_groups=groups, **common)
    if is_training:
        var = unbiased_variance(moments) if layer.unbiased else moments.var
        layer.mean_ema(along_axis(moments.mean, x.ndim, axis).astype(dtype))
        layer.var_ema(along_axis(var, x.ndim, axis).astype(dtype))
    return y


def _finish(layer: BatchNorm, y: jax.Array, residual: jax.Array | None) -> jax.Array:
    y = y if residual is None else y + residual.astype(y.dtype)
    return y if layer.activation is None else layer.activation(y)


class _PlainAverage(hk.ExponentialMovingAverage):
    """Averages all values with the same weight, in at least float32, because that weight becomes small."""

    def __call__(self, value: Any, update_stats: bool = True) -> jax.Array:
        value = widened(jnp.asarray(value))
        counter = hk.get_state("counter", (), jnp.int32, init=jnp.zeros) + 1
        old = hk.get_state("average", value.shape, value.dtype, init=lambda *_: value)  # as in Haiku's
        new = average(old, value, 1 / counter.astype(value.dtype))
        if update_stats:
            hk.set_state("counter", counter)
            hk.set_state("average", new)
        return new
