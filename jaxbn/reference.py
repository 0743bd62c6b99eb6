"""The public operations in plain JAX, without derivative rules. The hand-written rules are tested against them.

Each function has the arguments and the result of the function of `jaxbn` with the same name, except ``algorithm`` and
``forward_mode``. It follows the definition, shares no code with the rules, supports every mode of autodiff, and does
not check its arguments. The tests compare every hand-written rule with ``jax.grad`` and ``jax.jvp`` of its reference.

    >>> import jax, jax.numpy as jnp, jaxbn
    >>> x, kernel = jnp.arange(12.0).reshape(1, 3, 4, 1), jnp.ones((2, 2, 1, 1))
    >>> by_hand = jax.grad(lambda x: jnp.sum(jaxbn.conv(x, kernel) ** 2))(x)
    >>> autodiff = jax.grad(lambda x: jnp.sum(jaxbn.reference.conv(x, kernel) ** 2))(x)
    >>> bool(jnp.allclose(by_hand, autodiff))
    True
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from jaxbn._conv.original import lax_conv_general_dilated
from jaxbn._norm.statistics import Moments

_PAD_MODES: dict[str, Any] = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
_CHANNELS_LAST = {3: ("NWC", "WIO", "NWC"), 4: ("NHWC", "HWIO", "NHWC"), 5: ("NDHWC", "DHWIO", "NDHWC")}


def conv(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array | None = None,
    *,
    stride: int | tuple[int, ...] = 1,
    padding: str | int | tuple[int | tuple[int, int], ...] = "VALID",
    padding_mode: str | tuple[str, ...] = "zeros",
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
    flip_kernel: bool = False,
    dimension_numbers: Any = None,
    precision: lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
) -> jax.Array:
    """`jaxbn.conv` as one call of `jax.lax.conv_general_dilated` and an addition of the bias (D3)."""
    spatial = x.ndim - 2
    if padding_mode != "zeros":  # the padding is then explicit
        modes = (padding_mode,) * spatial if isinstance(padding_mode, str) else padding_mode
        axes = lax.conv_dimension_numbers(x.shape, kernel.shape, dimension_numbers or _CHANNELS_LAST[x.ndim]).lhs_spec
        for axis, mode, pair in zip(axes[2:], modes, _padding_pairs(padding, spatial), strict=True):
            widths = [(0, 0)] * x.ndim
            widths[axis] = pair
            x = jnp.pad(x, widths, mode=_PAD_MODES[mode])
        padding = "VALID"
    numbers = lax.conv_dimension_numbers(x.shape, kernel.shape, dimension_numbers or _CHANNELS_LAST[x.ndim])
    y = lax_conv_general_dilated(
        x,
        jnp.flip(kernel, numbers.rhs_spec[2:]) if flip_kernel else kernel,
        _per_axis(stride, spatial),
        _padding_pairs(padding, spatial),
        rhs_dilation=_per_axis(dilation, spatial),
        feature_group_count=groups,
        dimension_numbers=numbers,
        precision=precision,
        preferred_element_type=preferred_element_type,
    )
    return y if bias is None else y + _expand(bias, y, numbers.out_spec[1])


def conv_transpose(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array | None = None,
    *,
    stride: int | tuple[int, ...] = 1,
    padding: str | int | tuple[int | tuple[int, int], ...] = "SAME",
    output_padding: int | tuple[int, ...] = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
    flip_kernel: bool = False,
    dimension_numbers: Any = None,
    precision: lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
) -> jax.Array:
    """`jaxbn.conv_transpose` by its definition, as the linear transpose of `conv` with respect to its input."""
    spatial = x.ndim - 2
    numbers = lax.conv_dimension_numbers(x.shape, kernel.shape, dimension_numbers or _CHANNELS_LAST[x.ndim])
    stride, dilation, output_padding = (_per_axis(option, spatial) for option in (stride, dilation, output_padding))
    pairs = _padding_pairs(padding, spatial)
    sizes = []
    for axis in range(spatial):
        size, taps = x.shape[numbers.lhs_spec[2 + axis]], kernel.shape[numbers.rhs_spec[2 + axis]]
        extent = dilation[axis] * (taps - 1) + 1
        if isinstance(pairs, str):
            sizes.append(size * stride[axis] + (max(extent - stride[axis], 0) if pairs == "VALID" else 0))
        else:
            sizes.append((size - 1) * stride[axis] + extent - sum(pairs[axis]) + output_padding[axis])
    if not isinstance(pairs, str):
        # `output_padding` adds rows after the last window. With less padding, the convolution has no more windows.
        pairs = tuple((low, high - added) for (low, high), added in zip(pairs, output_padding, strict=True))

    out_spec, lhs_spec = numbers.out_spec, numbers.lhs_spec
    shape = dict(zip(out_spec, (x.shape[lhs_spec[0]], kernel.shape[numbers.rhs_spec[1]] * groups, *sizes), strict=True))
    transposed = jax.linear_transpose(
        lambda y: conv(
            y,
            kernel,
            stride=stride,
            padding=pairs,
            dilation=dilation,
            groups=groups,
            flip_kernel=flip_kernel,
            dimension_numbers=lax.ConvDimensionNumbers(out_spec, numbers.rhs_spec, lhs_spec),
            precision=precision,
        ),
        jax.ShapeDtypeStruct([shape[axis] for axis in range(x.ndim)], x.dtype),
    )
    (y,) = transposed(x)
    y = y if preferred_element_type is None else y.astype(preferred_element_type)
    return y if bias is None else y + _expand(bias, y, out_spec[1])


def batch_norm(
    x: jax.Array,
    gamma: jax.Array | None = None,
    beta: jax.Array | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    where: jax.Array | None = None,
    axis_name: Any = None,
    axis_index_groups: Any = None,
) -> tuple[jax.Array, Moments]:
    """`jaxbn.batch_norm` in two passes: first the mean, then the mean square of the deviations from it (D13)."""
    wide = _at_least_float32(x)
    summed_axes = tuple(other for other in range(x.ndim) if other != axis % x.ndim)
    kept = jnp.ones(x.shape, bool) if where is None else jnp.broadcast_to(where, x.shape)
    wide = jnp.where(kept, wide, jnp.zeros_like(wide))

    def total(terms: jax.Array) -> jax.Array:
        local = jnp.sum(terms, summed_axes)
        return local if axis_name is None else lax.psum(local, axis_name, axis_index_groups=axis_index_groups)

    count = total(kept.astype(jnp.int32)).astype(jnp.int32)
    m = jnp.maximum(count, 1).astype(wide.dtype)
    mean = total(wide) / m
    var = total(jnp.square(jnp.where(kept, wide - _expand(mean, wide, axis), jnp.zeros_like(wide)))) / m
    y = batch_norm_inference(wide, mean, var, gamma, beta, axis=axis, epsilon=epsilon)
    y = jnp.where(kept, y, jnp.zeros_like(y))
    return y.astype(x.dtype), Moments(mean, var, count)


def batch_norm_act(
    x: jax.Array,
    gamma: jax.Array | None,
    beta: jax.Array | None,
    activation: Callable[[jax.Array], jax.Array] | None,
    *,
    residual: jax.Array | None = None,
    axis: int = -1,
    epsilon: float = 1e-5,
    where: jax.Array | None = None,
    axis_name: Any = None,
    axis_index_groups: Any = None,
) -> tuple[jax.Array, Moments]:
    """`jaxbn.batch_norm_act` as `batch_norm`, an addition and the activation."""
    options: dict[str, Any] = {"where": where, "axis_name": axis_name, "axis_index_groups": axis_index_groups}
    z, moments = batch_norm(_at_least_float32(x), gamma, beta, axis=axis, epsilon=epsilon, **options)
    y = _activated(activation, z, residual)
    y = y if where is None else jnp.where(where, y, jnp.zeros_like(y))
    return y.astype(x.dtype), moments


def batch_norm_relu(
    x: jax.Array,
    gamma: jax.Array | None = None,
    beta: jax.Array | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    where: jax.Array | None = None,
    axis_name: Any = None,
    axis_index_groups: Any = None,
) -> tuple[jax.Array, Moments]:
    """`jaxbn.batch_norm_relu` as `batch_norm` followed by ReLU."""
    options: dict[str, Any] = {"where": where, "axis_name": axis_name, "axis_index_groups": axis_index_groups}
    y, moments = batch_norm(x, gamma, beta, axis=axis, epsilon=epsilon, **options)
    return jax.nn.relu(y), moments


def batch_norm_act_conv(
    x: jax.Array,
    gamma: jax.Array | None,
    beta: jax.Array | None,
    activation: Callable[[jax.Array], jax.Array] | None,
    kernel: jax.Array,
    bias: jax.Array | None = None,
    *,
    residual: jax.Array | None = None,
    return_activation: bool = False,
    epsilon: float = 1e-5,
    where: jax.Array | None = None,
    axis_name: Any = None,
    axis_index_groups: Any = None,
    **conv_options: Any,
) -> tuple[Any, ...]:
    """`jaxbn.batch_norm_act_conv` as `batch_norm_act` followed by `conv`."""
    layout = conv_options.get("dimension_numbers") or _CHANNELS_LAST[x.ndim]
    axis = lax.conv_dimension_numbers(x.shape, kernel.shape, layout).lhs_spec[1]
    options: dict[str, Any] = {"where": where, "axis_name": axis_name, "axis_index_groups": axis_index_groups}
    hidden, moments = batch_norm_act(
        x, gamma, beta, activation, residual=residual, axis=axis, epsilon=epsilon, **options
    )
    y = conv(hidden, kernel, bias, **conv_options)
    return (y, moments, hidden) if return_activation else (y, moments)


def batch_norm_relu_conv(
    x: jax.Array,
    gamma: jax.Array | None,
    beta: jax.Array | None,
    kernel: jax.Array,
    bias: jax.Array | None = None,
    *,
    stride: int | tuple[int, ...] = 1,
    padding: str | int | tuple[int | tuple[int, int], ...] = "VALID",
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
    flip_kernel: bool = False,
    dimension_numbers: Any = None,
    precision: lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
    epsilon: float = 1e-5,
    where: jax.Array | None = None,
    axis_name: Any = None,
    axis_index_groups: Any = None,
) -> tuple[jax.Array, Moments]:
    """`jaxbn.batch_norm_relu_conv` as `batch_norm_relu` followed by `conv`."""
    numbers = lax.conv_dimension_numbers(x.shape, kernel.shape, dimension_numbers or _CHANNELS_LAST[x.ndim])
    options: dict[str, Any] = {"where": where, "axis_name": axis_name, "axis_index_groups": axis_index_groups}
    hidden, moments = batch_norm_relu(x, gamma, beta, axis=numbers.lhs_spec[1], epsilon=epsilon, **options)
    y = conv(
        hidden,
        kernel,
        bias,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        flip_kernel=flip_kernel,
        dimension_numbers=dimension_numbers,
        precision=precision,
        preferred_element_type=preferred_element_type,
    )
    return y, moments


def batch_norm_inference(
    x: jax.Array,
    mean: jax.Array,
    var: jax.Array,
    gamma: jax.Array | None = None,
    beta: jax.Array | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
) -> jax.Array:
    """`jaxbn.batch_norm_inference` by its formula (D10)."""
    wide = _at_least_float32(x)
    mean, var = (_expand(moment, wide, axis) for moment in (mean, var))
    y = (wide - mean) / jnp.sqrt(var + epsilon)
    y = y if gamma is None else y * _expand(gamma, y, axis)
    y = y if beta is None else y + _expand(beta, y, axis)
    return y.astype(x.dtype)


def batch_norm_act_inference(
    x: jax.Array,
    mean: jax.Array,
    var: jax.Array,
    gamma: jax.Array | None = None,
    beta: jax.Array | None = None,
    activation: Callable[[jax.Array], jax.Array] | None = jax.nn.relu,
    *,
    residual: jax.Array | None = None,
    axis: int = -1,
    epsilon: float = 1e-5,
) -> jax.Array:
    """`jaxbn.batch_norm_act_inference` as `batch_norm_inference`, an addition and the activation."""
    z = batch_norm_inference(_at_least_float32(x), mean, var, gamma, beta, axis=axis, epsilon=epsilon)
    return _activated(activation, z, residual).astype(x.dtype)


def _activated(activation: Any, z: jax.Array, residual: jax.Array | None) -> jax.Array:
    z = z if residual is None else z + residual.astype(z.dtype)
    return z if activation is None else activation(z)


def _per_axis(option: int | tuple[int, ...], spatial: int) -> tuple[int, ...]:
    return tuple(option) if isinstance(option, (tuple, list)) else (option,) * spatial


def _padding_pairs(padding: str | int | tuple[int | tuple[int, int], ...], spatial: int) -> Any:
    """The padding before and after each axis; ``"SAME"`` and ``"VALID"`` are returned unchanged."""
    if isinstance(padding, str):
        return padding
    per_axis = padding if isinstance(padding, (tuple, list)) else (padding,) * spatial
    return tuple((sides, sides) if isinstance(sides, int) else tuple(sides) for sides in per_axis)


def _at_least_float32(x: jax.Array) -> jax.Array:
    return x if x.dtype in (jnp.float32, jnp.float64) else x.astype(jnp.float32)


def _expand(vector: jax.Array, like: jax.Array, axis: int) -> jax.Array:
    """The vector in the dtype of ``like``, with axes of length one so that it broadcasts along ``axis``."""
    other_axes = [other for other in range(like.ndim) if other != axis % like.ndim]
    return jnp.expand_dims(vector.astype(like.dtype), other_axes)
