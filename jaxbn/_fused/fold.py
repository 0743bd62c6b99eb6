"""Folds a batch norm into the convolution before it, for inference.

    γ (conv(x, K) + bias − μ) / √(σ² + ε) + β = conv(x, s K) + s (bias − μ) + β    with s = γ / √(σ² + ε)

s has one entry for each output channel, so it can be multiplied into the kernel. There is no rule here: plain autodiff
of these few products is as good.

References: Jacob et al. (2018), *Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference*, section 3.2.
"""

from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxbn._channels import wide_dtype
from jaxbn._conv.layout import read_layout
from jaxbn._norm.running import RunningStats
from jaxbn._validation import (
    as_arrays,
    as_integer,
    as_positive,
    public,
    require_bool,
    require_floating,
    require_vector,
)


@public
def fold_batch_norm(
    kernel: Float[Array, "*window in_per_group out"],
    bias: Float[Array, " out"] | None,
    running: RunningStats,
    gamma: Float[Array, " out"] | None = None,
    beta: Float[Array, " out"] | None = None,
    *,
    transposed: bool = False,
    groups: int = 1,
    dimension_numbers: Any = None,
    epsilon: float = 1e-5,
) -> tuple[Float[Array, "*window in_per_group out"], Float[Array, " out"]]:
    """Folds a batch norm into the convolution before it, and returns the kernel and the bias of the convolution.

        conv(x, folded kernel, folded bias) = batch_norm_inference(conv(x, kernel, bias), mean, var, gamma, beta)

    Everything is computed in at least float32, and is differentiable.

    Args:
        kernel: The kernel of `conv`, or with ``transposed`` that of `conv_transpose`.
        bias: The bias of the convolution, or ``None``.
        running: The running statistics of the batch norm.
        gamma, beta: The parameters of the batch norm, or ``None``.
        transposed: Whether the kernel is that of `conv_transpose`.
        groups: The groups of the convolution.
        dimension_numbers: The layout of the convolution, as in `conv`.
        epsilon: The epsilon of the batch norm.

    Returns:
        The folded kernel, with the shape and dtype of ``kernel``, and the folded bias, in ``kernel``'s dtype.

    Raises:
        TypeError: An argument is not an array of a real floating dtype, or an option has the wrong type.
        ValueError: ``kernel`` has the wrong rank, or a vector does not have one entry for each output channel.

    Example:
        >>> import jax.numpy as jnp, jaxbn
        >>> running = jaxbn.RunningStats(jnp.array([1.0, 2.0]), jnp.array([4.0, 9.0]), jnp.array([1, 1]))
        >>> kernel, bias = jaxbn.fold_batch_norm(jnp.ones((3, 3, 1, 2)), None, running, epsilon=1e-12)
        >>> print(kernel[0, 0].round(2), bias.round(2))
        [[0.5  0.33]] [-0.5  -0.67]

    References:
        Deck, D10.
    """
    function = "fold_batch_norm"
    kernel, bias, gamma, beta = as_arrays(function, kernel=kernel, bias=bias, gamma=gamma, beta=beta)
    if not isinstance(running, RunningStats):
        raise TypeError(f"{function}: `running` is of type {type(running).__name__}; it must be RunningStats")
    mean, var = as_arrays(function, mean=running.mean, var=running.var)
    require_floating(function, "kernel", kernel.dtype)
    if kernel.ndim not in (3, 4, 5):
        raise ValueError(f"{function}: `kernel` has shape {kernel.shape}; it must have rank 3, 4 or 5")
    require_bool(function, "transposed", transposed)
    groups = as_integer(function, "groups", groups, least=1)
    epsilon = as_positive(function, "epsilon", epsilon, wide_dtype(kernel.dtype))
    layout = read_layout(function, kernel, kernel, dimension_numbers, flip_kernel=False)
    *window, channels, last = (kernel.shape[axis] for axis in layout.kernel)
    if last % groups:
        raise ValueError(
            f"{function}: `groups` is {groups}; it must divide the {last} channels of the kernel's last axis"
        )
    features = channels * groups if transposed else last
    for name, vector in {"bias": bias, "mean": mean, "var": var, "gamma": gamma, "beta": beta}.items():
        if vector is not None:
            require_vector(function, name, vector, features, "one entry for each output channel")

    dtype = wide_dtype(kernel.dtype)
    scale = lax.rsqrt(var.astype(dtype) + epsilon)
    scale = scale if gamma is None else scale * gamma.astype(dtype)
    shift = -mean.astype(dtype) if bias is None else bias.astype(dtype) - mean.astype(dtype)
    shift = scale * shift if beta is None else scale * shift + beta.astype(dtype)
    factors = jnp.expand_dims(scale, 0)
    if transposed:  # The kernel's last axes are the output channels of one group, and the input channels of all.
        factors = jnp.repeat(scale.reshape(groups, channels).T, last // groups, axis=1)
    folded = layout.canonical_kernel(kernel).astype(dtype) * jnp.expand_dims(factors, range(len(window)))
    return layout.restore_kernel(folded.astype(kernel.dtype)), shift.astype(kernel.dtype)
