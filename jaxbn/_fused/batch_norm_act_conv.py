"""Batch normalisation, an activation and a convolution as one operation with one rule: a block of a residual network.

    h = φ(γ x̂ + β + residual)    y = conv(h, K) + bias

The backward pass goes through the convolution first (D5, D7), and then through `batch_norm_act` (D13 to D16):

    dh = Σ dy · K    dK = Σ h · dy    dbias = Σ dy    then dx, dγ, dβ, dresidual from dh

dK needs h, which is as large as ``x`` and cheap to compute from it, so the backward pass computes h again. If h is
returned too, its cotangent is added to dh.

Forward mode goes the other way, with the tangent dh of `batch_norm_act`: ``dy = conv(dh, K) + conv(h, dK) + dbias``.

Saved for the backward pass: the arguments, which the caller holds anyway, and four vectors with one entry for each
channel. In a chain of these blocks ``x`` is the output of the previous block, so one activation is kept for each block,
where autodiff keeps several. A compiler that notices that both passes compute the same h could keep it instead of
computing it again; `_make_dependent` prevents that. With ``forward_mode=True`` the same is saved, but nothing prevents
the CPU's compiler from keeping h.

References: He et al. (2016), *Identity Mappings in Deep Residual Networks*, for the order of the three operations;
Pleiss et al. (2017), *Memory-Efficient Implementation of DenseNets*, for computing normalised values twice.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import zero_from_primal
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from jaxbn._conv.conv import ConvResiduals, conv_bwd, conv_fwd, conv_tangent
from jaxbn._conv.options import ConvConfig, ConvOptions
from jaxbn._norm.batch_norm import (
    Operands,
    Residuals,
    batch_norm_bwd,
    batch_norm_fwd,
    batch_norm_tangents,
    y_from_residuals,
)
from jaxbn._norm.options import (
    BatchNormOptions,
    as_mask,
    as_residual,
    shard_vectors,
    training_options,
    with_activation,
)
from jaxbn._norm.statistics import Moments
from jaxbn._sharding import vary_alike
from jaxbn._tangents import apply_tangent_map
from jaxbn._validation import as_arrays, public, require_bool


@public
def batch_norm_act_conv(
    x: Float[Array, "batch *spatial in"],
    gamma: Float[Array, " in"] | None,
    beta: Float[Array, " in"] | None,
    activation: Callable[[Any], jax.Array] | None,
    kernel: Float[Array, "*window in_per_group out"],
    bias: Float[Array, " out"] | None = None,
    *,
    residual: Float[Array, "batch *spatial in"] | None = None,
    return_activation: bool = False,
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
    forward_mode: bool = False,
) -> tuple[Any, ...]:
    """Computes batch norm, a residual connection, an activation and a convolution; saves only the arguments.

        h = activation(γ · x̂ + β + residual)    y = conv(h, kernel) + bias    with x̂ = (x − μ) / √(σ² + ε)

    The gradients are those of `conv` and of `batch_norm_act`. Saved for the backward pass: ``x``, ``residual``, the
    parameters and four vectors with one entry for each channel. The convolution's input h is computed again.

    Args:
        x: The images, as in `conv`. Their channels, by ``dimension_numbers``, are normalised.
        gamma, beta, epsilon, axis_name, axis_index_groups: As in `batch_norm`.
        activation, residual: As in `batch_norm_act`.
        where: The mask, as in `batch_norm`. h is 0 where it is False.
        kernel, bias, stride, dilation, groups, flip_kernel, dimension_numbers, precision, preferred_element_type,
            algorithm: As in `conv`.
        return_activation: Whether h is returned too, for the next residual connection.
        padding: As in `conv`. The zeros are added after the activation and are not normalised.
        forward_mode: Whether forward mode works too, as in `batch_norm`.

    Returns:
        The output of the convolution, and the `Moments` of ``x``; with ``return_activation`` also h.

    Raises:
        TypeError, ValueError: As in `conv` and in `batch_norm_act`.

    Example:
        >>> import jax, jax.numpy as jnp, jaxbn
        >>> x, kernel = jnp.ones((2, 5, 5, 3)), jnp.ones((3, 3, 3, 4))
        >>> y, moments = jaxbn.batch_norm_act_conv(x, None, None, jax.nn.silu, kernel, padding="SAME")
        >>> y.shape, moments.mean.shape
        ((2, 5, 5, 4), (3,))

    References:
        Deck, D3, D5, D7, D11, D13 to D16.
    """
    conv = ConvOptions(
        function="batch_norm_act_conv",
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
    norm = {"epsilon": epsilon, "axis_name": axis_name, "axis_index_groups": axis_index_groups}
    require_bool(conv.function, "return_activation", return_activation)
    y, moments, hidden = _validated(
        conv, norm, activation, forward_mode, return_activation, x, gamma, beta, kernel, bias, where, residual
    )
    return (y, moments, hidden) if return_activation else (y, moments)


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
    forward_mode: bool = False,
) -> tuple[Float[Array, "batch *output out"], Moments]:
    """Computes batch norm, a ReLU and a convolution, and saves no activation but ``x``.

        y = conv(max(0, γ · x̂ + β), kernel) + bias    with x̂ = (x − μ) / √(σ² + ε)

    It is `batch_norm_act_conv` with `jax.nn.relu`: the gradients are those of `conv` and of `batch_norm_relu`. Saved
    for the backward pass: ``x``, the parameters and four vectors with one entry for each channel. The convolution's
    input is computed again.

    Args:
        x: The images, as in `conv`. Their channels, by ``dimension_numbers``, are normalised.
        gamma, beta, epsilon, axis_name, axis_index_groups: As in `batch_norm`.
        where: The mask, as in `batch_norm`. The convolution's input is 0 where it is False.
        kernel, bias, stride, dilation, groups, flip_kernel, dimension_numbers, precision, preferred_element_type,
            algorithm: As in `conv`.
        padding: As in `conv`. The zeros are added after the ReLU and are not normalised.
        forward_mode: Whether forward mode works too, as in `batch_norm`.

    Returns:
        The output of the convolution, and the `Moments` of ``x``.

    Raises:
        TypeError, ValueError: As in `conv` and in `batch_norm`.

    Example:
        >>> import jax.numpy as jnp, jaxbn
        >>> x, kernel = jnp.ones((2, 5, 5, 3)), jnp.ones((3, 3, 3, 4))
        >>> y, moments = jaxbn.batch_norm_relu_conv(x, jnp.ones(3), jnp.zeros(3), kernel, padding="SAME")
        >>> y.shape, moments.mean.shape
        ((2, 5, 5, 4), (3,))

    References:
        Deck, D3, D5, D7, D11, D13 to D16.
    """
    conv = ConvOptions(
        function="batch_norm_relu_conv",
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
    norm = {"epsilon": epsilon, "axis_name": axis_name, "axis_index_groups": axis_index_groups}
    y, moments, _ = _validated(conv, norm, jax.nn.relu, forward_mode, False, x, gamma, beta, kernel, bias, where)
    return y, moments


def _validated(
    conv_options: ConvOptions,
    norm_options: dict[str, Any],
    activation: Any,
    forward_mode: bool,
    return_activation: bool,
    x: Any,
    gamma: Any,
    beta: Any,
    kernel: Any,
    bias: Any,
    where: Any,
    residual: Any = None,
) -> tuple[jax.Array, Moments, jax.Array | None]:
    """Validate the arguments of a public function, and call the core."""
    function = conv_options.function
    x, gamma, beta, kernel, bias, residual = as_arrays(
        function, x=x, gamma=gamma, beta=beta, kernel=kernel, bias=bias, residual=residual
    )
    require_bool(function, "forward_mode", forward_mode)
    conv = conv_options.resolve(x, kernel, bias)
    norm = training_options(function, x, gamma, beta, axis=conv.layout.x[-1], **norm_options)
    gamma, beta = shard_vectors(norm, x, gamma, beta)
    if norm.collectives is not None:
        kernel, bias = norm.collectives.copy_for_each_member(kernel, bias)
    where, residual = as_mask(function, where, x), as_residual(function, residual, x)
    *arrays, kernel, bias = vary_alike(x, gamma, beta, where, residual, kernel, bias, over=norm.axis_names)
    norm, constants = with_activation(function, norm, activation, arrays[0])
    core = _batch_norm_act_conv_with_tangents if forward_mode else _batch_norm_act_conv
    outputs: Any = core(
        BlockOptions(norm, conv, return_activation), Operands(*arrays, constants=constants), kernel, bias
    )
    return outputs


class BlockOptions(NamedTuple):
    norm: BatchNormOptions
    conv: ConvConfig
    return_activation: bool


Outputs = tuple[jax.Array, Moments, jax.Array | None]
"""y, the moments, and h if it is returned; or their cotangents, or their tangents."""


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _batch_norm_act_conv(
    options: BlockOptions, operands: Operands, kernel: jax.Array, bias: jax.Array | None
) -> Outputs:
    return _fwd(options, operands, kernel, bias)[0]


class _Residuals(NamedTuple):
    norm: Residuals  # the caller's arrays, and vectors with one entry for each channel
    kernel: jax.Array  # the caller's array
    bias: jax.Array | None  # the caller's array, for its dtype


def _fwd(
    options: BlockOptions, operands: Operands, kernel: jax.Array, bias: jax.Array | None
) -> tuple[Outputs, _Residuals]:
    (hidden, moments), residuals = batch_norm_fwd(options.norm, operands)
    y, _ = conv_fwd(options.conv, hidden, kernel, bias)
    return (y, moments, hidden if options.return_activation else None), _Residuals(residuals, kernel, bias)


def _bwd(
    options: BlockOptions, residuals: _Residuals, cotangents: Outputs
) -> tuple[Operands, jax.Array, jax.Array | None]:
    norm, conv, _ = options
    dy, dmoments, returned_dhidden = cotangents
    norm_residuals = residuals.norm._replace(inv_std=_make_dependent(residuals.norm.inv_std, dy))
    hidden = y_from_residuals(norm, norm_residuals)
    dhidden, dkernel, dbias = conv_bwd(conv, ConvResiduals(hidden, residuals.kernel, residuals.bias), dy)
    dhidden = dhidden if returned_dhidden is None else dhidden + returned_dhidden
    (doperands,) = batch_norm_bwd(norm, norm_residuals, (dhidden, dmoments))
    return doperands, dkernel, dbias


_batch_norm_act_conv.defvjp(_fwd, _bwd)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _batch_norm_act_conv_with_tangents(
    options: BlockOptions, operands: Operands, kernel: jax.Array, bias: jax.Array | None
) -> Outputs:
    return _fwd(options, operands, kernel, bias)[0]


def _jvp(options: BlockOptions, primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Outputs, Outputs]:
    (y, moments, hidden), residuals = _fwd(options, *primals)
    dy, dmean, dvar, dhidden = apply_tangent_map(partial(_tangents, options), residuals, tangents)
    dmoments = Moments(dmean, dvar, zero_from_primal(moments.count, symbolic_zeros=True))
    return (y, moments, hidden), (dy, dmoments, dhidden)


def _tangents(
    options: BlockOptions,
    residuals: _Residuals,
    tangents: Operands,
    dkernel: jax.Array | None,
    dbias: jax.Array | None,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array | None]:
    """Compute the tangents ``dy = conv(dh, K) + conv(h, dK) + dbias``, ``dμ``, ``dσ²`` and dh.

    ``None`` stands for a zero tangent.
    """
    norm, conv, return_activation = options
    hidden = y_from_residuals(norm, residuals.norm)
    dhidden, dmean, dvar = batch_norm_tangents(norm, residuals.norm, tangents)
    moved = dhidden if jax.tree.leaves(tangents) else None
    dy = conv_tangent(conv, ConvResiduals(hidden, residuals.kernel, residuals.bias), moved, dkernel, dbias)
    return dy, dmean, dvar, dhidden if return_activation else None


_batch_norm_act_conv_with_tangents.defjvp(_jvp, symbolic_zeros=True)


def _make_dependent(vector: jax.Array, dy: jax.Array) -> jax.Array:
    """Return ``vector`` as a value that the compiler cannot compute before ``dy``.

    The value added is ``0 · max(dy)``. XLA does not replace it by 0, because 0 · ∞ is NaN. The usual tool,
    `jax.lax.optimization_barrier`, does not help: XLA removes it from programs for the CPU before it schedules them,
    and a chain of blocks then took twice as much memory.
    """
    zero = 0 * jnp.nan_to_num(jnp.max(lax.stop_gradient(dy), initial=0))
    return vector + zero.astype(vector.dtype)
