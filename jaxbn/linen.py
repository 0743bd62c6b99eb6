"""Layers of ``flax.linen`` that compute by jaxbn.

    from jaxbn.linen import Conv, ConvTranspose, BatchNorm  # in place of flax.linen's

The layers are subclasses of Flax's, with its fields, parameters and statistics, so that checkpoints of either load
into the other. Batch norm follows Flax's running averages; ``use_fast_variance`` is accepted and makes no difference,
because jaxbn's variance is accurate and fast. Flax must be installed (``pip install flax``).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxbn._conv.general import conv_general_dilated
from jaxbn._flax import is_left_to_flax, is_normalised_by_flax, normalise, transposed_convolution
from jaxbn._norm.running import RunningStats

try:
    from flax import linen as nn
    from flax.linen.dtypes import canonicalize_dtype
except ImportError:
    raise ImportError("jaxbn.linen: Flax is not installed; pip install flax") from None

__all__ = ["BatchNorm", "Conv", "ConvTranspose"]


class Conv(nn.Conv):
    """``flax.linen.Conv``, computed by `jaxbn.conv_general_dilated`. The fields are Flax's.

    Example:
        >>> import jax, jax.numpy as jnp, jaxbn
        >>> layer = jaxbn.linen.Conv(8, (3, 3))
        >>> y, variables = layer.init_with_output(jax.random.key(0), jnp.ones((2, 5, 5, 3)))
        >>> y.shape
        (2, 5, 5, 8)
    """

    conv_general_dilated: Callable[..., Any] | None = conv_general_dilated


class ConvTranspose(nn.ConvTranspose):
    """``flax.linen.ConvTranspose``, computed by `jaxbn.conv_general_dilated`. The fields are Flax's.

    Flax's own code computes circular padding.

    Example:
        >>> import jax, jax.numpy as jnp, jaxbn
        >>> layer = jaxbn.linen.ConvTranspose(8, (3, 3), strides=(2, 2))
        >>> y, variables = layer.init_with_output(jax.random.key(0), jnp.ones((2, 5, 5, 3)))
        >>> y.shape
        (2, 10, 10, 8)
    """

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        window = (self.kernel_size,) if isinstance(self.kernel_size, int) else tuple(self.kernel_size)
        channels = (inputs.shape[-1], self.features)
        shape = (*window, *(reversed(channels) if self.transpose_kernel else channels))
        if is_left_to_flax(self, shape):
            return super().__call__(inputs)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        bias = self.param("bias", self.bias_init, (self.features,), self.param_dtype) if self.use_bias else None
        kernel = kernel if self.mask is None else kernel * self.mask
        operands: Any = self.promote_dtype(inputs, kernel, bias, dtype=self.dtype)
        return transposed_convolution(self, *operands)


class BatchNorm(nn.BatchNorm):
    """``flax.linen.BatchNorm``, computed by `jaxbn.batch_norm_act` and `jaxbn.batch_norm_act_inference`.

    The fields are Flax's and two more. Flax's own code normalises complex or empty arrays, several axes of channels and
    a single example. Forward mode (`jax.jvp`) does not work through the layer.

    Attributes:
        momentum: The weight of the old statistics, as in Flax; ``None`` gives all batches the same weight, and counts
            them in a variable ``updates``, next to the statistics.
        activation: An activation to apply to the result, as in `jaxbn.batch_norm_act`.
        unbiased: Whether the running variance averages unbiased variances, as in PyTorch. Flax averages biased ones.

    Example:
        >>> import jax, jax.numpy as jnp, jaxbn
        >>> layer = jaxbn.linen.BatchNorm(use_running_average=False, activation=jax.nn.relu)
        >>> y, variables = layer.init_with_output(jax.random.key(0), jnp.array([[1.0], [3.0]]))
        >>> print(y.round(3).T, sorted(variables["batch_stats"]))
        [[0. 1.]] ['mean', 'var']
    """

    momentum: float | None = 0.99  # pyright: ignore[reportIncompatibleVariableOverride]
    activation: Callable[[Any], jax.Array] | None = None
    unbiased: bool = False

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        use_running_average: bool | None = None,
        *,
        mask: jax.Array | None = None,
        residual: jax.Array | None = None,
    ) -> jax.Array:
        """Normalises as Flax does. ``residual`` is added before the activation."""
        axis_name = None if self.is_initializing() else self.axis_name
        if is_normalised_by_flax(self, x, axis_name=axis_name, residual=residual):
            return super().__call__(x, use_running_average, mask=mask)
        use_running_average = nn.merge_param("use_running_average", self.use_running_average, use_running_average)
        shape = (x.shape[self.axis],)
        dtype = jnp.float32 if self.force_float32_reductions else self.param_dtype
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, dtype)
        var = self.variable("batch_stats", "var", jnp.ones, shape, dtype)
        updates = (
            self.variable("batch_stats", "updates", jnp.zeros, shape, jnp.int32) if self.momentum is None else None
        )
        gamma = self.param("scale", self.scale_init, shape, self.param_dtype) if self.use_scale else None
        beta = self.param("bias", self.bias_init, shape, self.param_dtype) if self.use_bias else None
        running = RunningStats(mean.value, var.value, jnp.zeros(shape, jnp.int32) if updates is None else updates.value)
        y, new = normalise(
            self,
            jnp.asarray(x),
            gamma,
            beta,
            running,
            dtype=canonicalize_dtype(x, gamma, beta, dtype=self.dtype),
            axis=self.axis,
            axis_name=axis_name,
            use_running_average=use_running_average,
            mask=mask,
            residual=residual,
        )
        if not (use_running_average or self.is_initializing()):
            mean.value, var.value = new.mean, new.var
            if updates is not None:
                updates.value = new.updates
        return y
