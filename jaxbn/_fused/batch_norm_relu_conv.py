"""Batch normalisation, ReLU and convolution as one operation: the unit of a pre-activation network, kept by its input.

    h = max(0, γ x̂ + β)    y = conv(h, K) + bias

Backward, the convolution first (D5, D7), then `batch_norm_relu` (D13 to D16):

    dh = Σ dy · K    dK = Σ h · dy    dbias = Σ dy    then dx, dγ, dβ from dh

``dK`` needs h, which is as large as ``x`` and costs one reading of it to compute: the backward pass computes it again.

Saved for the backward pass: ``x`` and the parameters, which the caller holds anyway, and four vectors of channels. In a
chain of these units ``x`` is the last unit's output: one activation a layer, where autodiff keeps several.
That h is then computed in the backward pass indeed, and not kept by a compiler that sees it is the forward's, is what
`_not_before` is for.

References: He et al. (2016), *Identity Mappings in Deep Residual Networks*, for the order of the three; Pleiss et al.
(2017), *Memory-Efficient Implementation of DenseNets*, for computing the normalised values anew.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from jaxbn._conv.conv import ConvResiduals, conv_bwd, conv_fwd
from jaxbn._conv.options import ConvConfig, ConvOptions
from jaxbn._norm.arguments import Config, along_devices, as_mask, training_config
from jaxbn._norm.maps import Residuals, normalise, normalised, pullback
from jaxbn._norm.moments import Moments
from jaxbn._sharding import vary_alike
from jaxbn._validation import as_arrays, public


@public
def batch_norm_relu_conv(
    x: Float[Array, "batch *spatial in"],
    gamma: Float[Array, " in"] | None,
    beta: Float[Array, " in"] | None,
    kernel: Float[Array, "*window in_per_group out"],
    bias: Float[Array, " out"] | None = None,
    *,
    stride: int | tuple[int, ...] = 1,
    padding: str | int | tuple[int | tuple[int, int], ...] = "VALID",
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
    flip_kernel: bool = False,
    dimension_numbers: Any = None,
    precision: lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
    algorithm: str | None = None,
    epsilon: float = 1e-5,
    where: Bool[Array, "..."] | None = None,
    axis_name: Any = None,
    axis_index_groups: Sequence[Sequence[int]] | None = None,
) -> tuple[Float[Array, "batch *output out"], Moments]:
    """Convolves what `batch_norm_relu` makes of ``x``, and keeps only ``x`` for the backward pass.

        y = conv(max(0, γ x̂ + β), kernel) + bias    with x̂ = (x − μ) / √(σ² + ε)

    Gradients, by hand: those of `conv` and of `batch_norm_relu`, with what lies between them computed anew. Saved for
    the backward pass: ``x``, the parameters and four vectors of channels.

    The channels are normalised where ``dimension_numbers`` has them in ``x``; there is no ``axis``. The other options
    are those of `batch_norm_relu` and of `conv`.

    Args:
        x: Images, as in `conv`.
        gamma: The scale of each channel of ``x``, as in `batch_norm`; ``None`` is one.
        beta: The shift of each channel of ``x``, as in `batch_norm`; ``None`` is zero.
        kernel: As in `conv`.
        bias: As in `conv`.
        stride: As in `conv`.
        padding: As in `conv`; it is with zeros behind the ReLU.
        dilation: As in `conv`.
        groups: As in `conv`.
        flip_kernel: As in `conv`.
        dimension_numbers: As in `conv`.
        precision: As in `conv`.
        preferred_element_type: As in `conv`.
        algorithm: As in `conv`.
        epsilon: As in `batch_norm`.
        where: As in `batch_norm`; the convolution sees 0 where it is False.
        axis_name: As in `batch_norm`.
        axis_index_groups: As in `batch_norm`.

    Returns:
        `conv`'s output, and the `Moments` of ``x``.

    Raises:
        TypeError: As in `conv` and `batch_norm`.
        ValueError: As in `conv` and `batch_norm`.

    Example:
        >>> import jax.numpy as jnp, jaxbn
        >>> x, kernel = jnp.ones((2, 5, 5, 3)), jnp.ones((3, 3, 3, 4))
        >>> y, moments = jaxbn.batch_norm_relu_conv(x, jnp.ones(3), jnp.zeros(3), kernel, padding="SAME")
        >>> y.shape, moments.mean.shape
        ((2, 5, 5, 4), (3,))

    References:
        Deck, D3, D5, D7, D11, D13 to D16.
    """
    function = "batch_norm_relu_conv"
    x, gamma, beta, kernel, bias = as_arrays(function, x=x, gamma=gamma, beta=beta, kernel=kernel, bias=bias)
    options = ConvOptions(
        function=function,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        flip_kernel=flip_kernel,
        dimension_numbers=dimension_numbers,
        precision=precision,
        preferred_element_type=preferred_element_type,
        algorithm=algorithm,
    )
    conv = options.resolve(x, kernel, bias)
    norm = training_config(
        function,
        x,
        gamma,
        beta,
        axis=conv.layout.x[-1],
        epsilon=epsilon,
        axis_name=axis_name,
        axis_index_groups=axis_index_groups,
        rectified=True,
    )
    gamma, beta = along_devices(norm, x, gamma, beta)
    kernel, bias = (kernel, bias) if norm.devices is None else norm.devices.own(kernel, bias)
    arrays = vary_alike(x, gamma, beta, kernel, bias, as_mask(function, where, x), over=norm.names)
    outputs: Any = _batch_norm_relu_conv((norm, conv), *arrays)
    return outputs


class _Residuals(NamedTuple):
    norm: Residuals  # x, the parameters, vectors of channels
    kernel: jax.Array  # the caller's own
    bias: jax.Array | None  # the caller's own, for its dtype


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _batch_norm_relu_conv(
    configs: tuple[Config, ConvConfig],
    x: jax.Array,
    gamma: jax.Array | None,
    beta: jax.Array | None,
    kernel: jax.Array,
    bias: jax.Array | None,
    where: jax.Array | None,
) -> tuple[jax.Array, Moments]:
    return _fwd(configs, x, gamma, beta, kernel, bias, where)[0]


def _fwd(
    configs: tuple[Config, ConvConfig],
    x: jax.Array,
    gamma: jax.Array | None,
    beta: jax.Array | None,
    kernel: jax.Array,
    bias: jax.Array | None,
    where: jax.Array | None,
) -> tuple[tuple[jax.Array, Moments], _Residuals]:
    norm, conv = configs
    hidden, moments, residuals = normalise(norm, x, gamma, beta, where)
    y, _ = conv_fwd(conv, hidden, kernel, bias)
    return (y, moments), _Residuals(residuals, kernel, bias)


def _bwd(
    configs: tuple[Config, ConvConfig], residuals: _Residuals, cotangents: tuple[jax.Array, Moments]
) -> tuple[jax.Array | None, ...]:
    norm, conv = configs
    dy, dmoments = cotangents
    of_norm = residuals.norm._replace(inv_std=_not_before(dy, residuals.norm.inv_std))
    hidden = normalised(norm, of_norm)
    dhidden, dkernel, dbias = conv_bwd(conv, ConvResiduals(hidden, residuals.kernel, residuals.bias), dy)
    dx, dgamma, dbeta = pullback(norm, of_norm, dhidden, dmoments.mean, dmoments.var)
    return dx, dgamma, dbeta, dkernel, dbias, None


_batch_norm_relu_conv.defvjp(_fwd, _bwd)


def _not_before(dy: jax.Array, vector: jax.Array) -> jax.Array:
    """``vector``, as something that needs ``dy``.

    XLA does not fold a product with zero, which need not be zero. It does remove `jax.lax.optimization_barrier` from a
    program for the CPU, before it decides when each value is computed: the chain's memory was twice as much with that.
    """
    zero = 0 * jnp.nan_to_num(jnp.max(lax.stop_gradient(dy), initial=0))
    return vector + zero.astype(vector.dtype)
