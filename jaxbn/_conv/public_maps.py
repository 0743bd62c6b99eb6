"""The three maps for callers: any layout, friendly options, every mode of autodiff."""

from collections.abc import Sequence
from typing import Any

import jax
from jax import lax
from jax.typing import DTypeLike

from jaxbn._conv import maps
from jaxbn._conv.arguments import Options, arithmetic_of, conv_arguments
from jaxbn._conv.geometry import ConvGeometry
from jaxbn._conv.layout import Layout
from jaxbn._validation import as_arrays, public

_Padding = str | int | tuple[int | tuple[int, int], ...]
_Steps = int | tuple[int, ...]


@public
def convolve(
    x: jax.Array,
    kernel: jax.Array,
    *,
    stride: _Steps = 1,
    padding: _Padding = "VALID",
    dilation: _Steps = 1,
    groups: int = 1,
    flip_kernel: bool = False,
    dimension_numbers: Any = None,
    precision: lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
    algorithm: str | None = None,
) -> jax.Array:
    """Convolves as `conv` does, as a bilinear map: linear in ``x`` and in ``kernel``, every mode of autodiff.

        y(b, p, k) = Σ_c Σ_n x(b, p · stride + n · dilation − low, c) · K(n, c, k)

    Its derivatives are `convolve_input_gradient` and `convolve_kernel_gradient`, of which the same is true. Saved for
    the backward pass: ``x`` and ``kernel``.

    Args:
        x: As in `conv`, and so are all others.
        kernel: As in `conv`.
        stride: As in `conv`.
        padding: As in `conv`.
        dilation: As in `conv`.
        groups: As in `conv`.
        flip_kernel: As in `conv`.
        dimension_numbers: As in `conv`.
        precision: As in `conv`.
        preferred_element_type: As in `conv`.
        algorithm: As in `conv`.

    Returns:
        ``y``, as `conv` returns it.

    Raises:
        TypeError: As in `conv`.
        ValueError: As in `conv`.

    Example:
        >>> import jax, jax.numpy as jnp, jaxbn
        >>> x, kernel = jnp.ones((1, 5, 5, 1)), jnp.ones((3, 3, 1, 2))
        >>> _, change = jax.jvp(lambda kernel: jaxbn.convolve(x, kernel), (kernel,), (kernel,))
        >>> change.shape
        (1, 3, 3, 2)

    References:
        Deck, D3.
    """
    x, kernel = as_arrays("convolve", x=x, kernel=kernel)
    options = Options(
        "convolve", stride, padding, dilation, groups, flip_kernel, dimension_numbers, preferred_element_type, algorithm
    )
    layout, geometry = conv_arguments(options, x, kernel, None)
    x, kernel = layout.canonical_x(x), layout.canonical_kernel(kernel, flip=flip_kernel)
    return layout.restore_y(maps.convolve(geometry, arithmetic_of(options, geometry, precision), x, kernel))


@public
def convolve_input_gradient(
    dy: jax.Array,
    kernel: jax.Array,
    input_shape: tuple[int, ...],
    *,
    stride: _Steps = 1,
    padding: _Padding = "VALID",
    dilation: _Steps = 1,
    groups: int = 1,
    flip_kernel: bool = False,
    dimension_numbers: Any = None,
    precision: lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
    algorithm: str | None = None,
) -> jax.Array:
    """The gradient of `convolve` with respect to its input, as a bilinear map of ``dy`` and ``kernel``.

        dx(b, i, c) = Σ_k Σ_n dy(b, p, k) · K(n, c, k)    over the p, n with p · stride + n · dilation − low = i

    Saved for the backward pass: ``dy`` and ``kernel``.

    Args:
        dy: The cotangent of ``y``, of ``y``'s shape and ``kernel``'s dtype.
        kernel: As in `conv`.
        input_shape: The shape of ``x``, which a stride leaves open.
        stride: As in `conv`, and so are all others: those of the convolution.
        padding: As in `conv`.
        dilation: As in `conv`.
        groups: As in `conv`.
        flip_kernel: As in `conv`.
        dimension_numbers: As in `conv`.
        precision: As in `conv`.
        preferred_element_type: As in `conv`.
        algorithm: As in `conv`.

    Returns:
        ``dx`` of ``input_shape``, in ``dy``'s dtype or ``preferred_element_type``.

    Raises:
        TypeError: As in `conv`.
        ValueError: As in `conv`; or ``dy`` has not the shape that a convolution of these gives.

    Example:
        >>> import jax.numpy as jnp, jaxbn
        >>> dy, kernel = jnp.ones((1, 3, 3, 2)), jnp.ones((3, 3, 1, 2))
        >>> jaxbn.convolve_input_gradient(dy, kernel, (1, 5, 5, 1)).shape
        (1, 5, 5, 1)

    References:
        Deck, D5.
    """
    dy, kernel = as_arrays("convolve_input_gradient", dy=dy, kernel=kernel)
    options = Options(
        "convolve_input_gradient",
        stride,
        padding,
        dilation,
        groups,
        flip_kernel,
        dimension_numbers,
        preferred_element_type,
        algorithm,
    )
    x = jax.ShapeDtypeStruct(tuple(input_shape), dy.dtype)
    layout, geometry = conv_arguments(options, x, kernel, None)
    dy = _cotangent(options, layout, geometry, input_shape, dy)
    kernel = layout.canonical_kernel(kernel, flip=flip_kernel)
    return layout.restore_x(maps.input_gradient(geometry, arithmetic_of(options, geometry, precision), dy, kernel))


@public
def convolve_kernel_gradient(
    x: jax.Array,
    dy: jax.Array,
    kernel_shape: tuple[int, ...],
    *,
    stride: _Steps = 1,
    padding: _Padding = "VALID",
    dilation: _Steps = 1,
    groups: int = 1,
    flip_kernel: bool = False,
    dimension_numbers: Any = None,
    precision: lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
    algorithm: str | None = None,
) -> jax.Array:
    """The gradient of `convolve` with respect to its kernel, as a bilinear map of ``x`` and ``dy``.

        dK(n, c, k) = Σ_b Σ_p x(b, p · stride + n · dilation − low, c) · dy(b, p, k)

    Saved for the backward pass: ``x`` and ``dy``.

    Args:
        x: As in `conv`.
        dy: The cotangent of ``y``, of ``y``'s shape and ``x``'s dtype.
        kernel_shape: The shape of ``kernel``, which a stride leaves open.
        stride: As in `conv`, and so are all others: those of the convolution.
        padding: As in `conv`.
        dilation: As in `conv`.
        groups: As in `conv`.
        flip_kernel: As in `conv`.
        dimension_numbers: As in `conv`.
        precision: As in `conv`.
        preferred_element_type: As in `conv`.
        algorithm: As in `conv`.

    Returns:
        ``dK`` of ``kernel_shape``, in ``x``'s dtype or ``preferred_element_type``.

    Raises:
        TypeError: As in `conv`.
        ValueError: As in `conv`; or ``dy`` has not the shape that a convolution of these gives.

    Example:
        >>> import jax.numpy as jnp, jaxbn
        >>> x, dy = jnp.ones((1, 5, 5, 1)), jnp.ones((1, 3, 3, 2))
        >>> jaxbn.convolve_kernel_gradient(x, dy, (3, 3, 1, 2)).shape
        (3, 3, 1, 2)

    References:
        Deck, D7.
    """
    x, dy = as_arrays("convolve_kernel_gradient", x=x, dy=dy)
    options = Options(
        "convolve_kernel_gradient",
        stride,
        padding,
        dilation,
        groups,
        flip_kernel,
        dimension_numbers,
        preferred_element_type,
        algorithm,
    )
    kernel = jax.ShapeDtypeStruct(tuple(kernel_shape), x.dtype)
    layout, geometry = conv_arguments(options, x, kernel, None)
    dy = _cotangent(options, layout, geometry, x.shape, dy, x.dtype)
    dkernel = maps.kernel_gradient(geometry, arithmetic_of(options, geometry, precision), layout.canonical_x(x), dy)
    return layout.restore_kernel(dkernel, flip=flip_kernel)


def _cotangent(
    options: Options, layout: Layout, geometry: ConvGeometry, x_shape: Sequence[int], dy: jax.Array, dtype: Any = None
) -> jax.Array:
    """``dy`` with channels last; raises unless it is a cotangent of what the convolution returns."""
    batch = x_shape[layout.x[0]]
    canonical = (batch, *geometry.output, geometry.out_features)
    wanted = tuple(canonical[layout.y.index(axis)] for axis in range(len(canonical)))
    if dy.shape != wanted:
        raise ValueError(
            f"{options.function}: `dy` has shape {dy.shape}; it must be {wanted}, the shape that the convolution of "
            f"an input of shape {tuple(x_shape)} returns with these options"
        )
    if dtype is not None and dy.dtype != dtype:
        raise TypeError(f"{options.function}: `dy` has dtype {dy.dtype}, `x` has {dtype}; they must be the same")
    return layout.canonical_y(dy)
