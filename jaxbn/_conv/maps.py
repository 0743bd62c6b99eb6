"""The three bilinear maps of a convolution, each of which is a derivative of the others (D3, D5, D7).

With channels last and ``i = p · stride + n · dilation − low`` (see `geometry`), summed over every index that is not on
the left:

    convolution        y(b, p, k)  = Σ x(b, i, c) · K(n, c, k)
    input_gradient     dx(b, i, c) = Σ dy(b, p, k) · K(n, c, k)
    kernel_gradient    dK(n, c, k) = Σ x(b, i, c) · dy(b, p, k)

Each map is the sum ``Σ x · K · dy`` without one of the factors, so its derivative with respect to an operand is another
of the three, and derivatives of every order need no further code. None of the maps rotates the kernel.

`convolve`, `convolve_input_gradient` and `convolve_kernel_gradient` are the same maps with the options of `conv`.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from jaxbn._conv import batching
from jaxbn._conv.algorithms import dense, table
from jaxbn._conv.algorithms.algorithm import Context
from jaxbn._conv.options import ConvConfig, ConvOptions, DimensionNumbers, PaddingOption, Steps
from jaxbn._conv.primitives import BilinearMap, Transpose
from jaxbn._conv.spec import ConvSpec
from jaxbn._sharding import sharding
from jaxbn._validation import as_arrays, public


def _plain_convolution(spec: ConvSpec, x: jax.Array, kernel: jax.Array) -> jax.Array:
    return dense.convolve(spec.geometry, Context(spec.arithmetic, None, False, False, table.run), x, kernel)


def _plain_input_gradient(spec: ConvSpec, dy: jax.Array, kernel: jax.Array) -> jax.Array:
    if 0 in spec.geometry.output:
        shape = (dy.shape[0], *spec.geometry.input, spec.geometry.in_features)
        return jnp.broadcast_to(_contraction(spec, dy, kernel), shape)
    return dense.input_gradient(spec.geometry, Context(spec.arithmetic, None, False, False, table.run), dy, kernel)


def _plain_kernel_gradient(spec: ConvSpec, x: jax.Array, dy: jax.Array) -> jax.Array:
    """Compute a contraction that has the type of the kernel gradient.

    JAX's convolution is no use here: its type rule refuses operands that are sharded along an axis that is summed over.
    Operands that are sharded along spatial axes are refused, because XLA's partitioner would compute a wrong sum.
    """
    for name, array in (("x", x), ("dy", dy)):
        axes = sharding(array)
        if any(axis is not None for axis in axes[1:-1]):
            raise ValueError(
                f"the gradient of a convolution's kernel: `{name}` is sharded along its spatial axes, "
                f"{axes} in channels-last order; shard it along the batch, or jax.sharding.reshard it before"
            )
    geometry = spec.geometry
    shape = (*geometry.window, geometry.in_features // geometry.groups, geometry.out_features)
    return jnp.broadcast_to(_contraction(spec, x, dy), shape)


def _contraction(spec: ConvSpec, left: jax.Array, right: jax.Array) -> jax.Array:
    return (jnp.sum(left) * jnp.sum(right)).astype(spec.arithmetic.result_type(left))


convolution = BilinearMap("convolve", _plain_convolution, partial(batching.compute, "convolve"), of_images=True)
input_gradient = BilinearMap(
    "input_gradient", _plain_input_gradient, partial(batching.compute, "input_gradient"), of_images=True
)
kernel_gradient = BilinearMap(
    "kernel_gradient", _plain_kernel_gradient, partial(batching.compute, "kernel_gradient"), of_images=False
)

convolution.define_transposes(
    left=Transpose(input_gradient, cotangent_first=True),  # dx from dy and kernel
    right=Transpose(kernel_gradient, cotangent_first=False),  # dkernel from x and dy
)
input_gradient.define_transposes(
    left=Transpose(convolution, cotangent_first=True),
    right=Transpose(kernel_gradient, cotangent_first=True),
)
kernel_gradient.define_transposes(
    left=Transpose(input_gradient, cotangent_first=False),
    right=Transpose(convolution, cotangent_first=False),
)


@public
def convolve(
    x: jax.Array,
    kernel: jax.Array,
    *,
    stride: Steps = 1,
    padding: PaddingOption = "VALID",
    dilation: Steps = 1,
    groups: int = 1,
    flip_kernel: bool = False,
    dimension_numbers: DimensionNumbers = None,
    precision: lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
    algorithm: str | None = None,
) -> jax.Array:
    """Convolves as `conv` does, as a bilinear map: every mode of autodiff works, `jax.jvp` included.

        y(b, p, k) = Σ_c Σ_n x(b, p · stride + n · dilation − low, c) · K(n, c, k)

    Its derivatives are `convolve_input_gradient` and `convolve_kernel_gradient`, which are bilinear maps too. Saved for
    the backward pass: ``x`` and ``kernel``.

    Args:
        x, kernel: The images and the weights, as in `conv`.
        stride, padding, dilation, groups, flip_kernel, dimension_numbers, precision, preferred_element_type, algorithm:
            As in `conv`. ``padding`` adds zeros, so it is not the name of another border.

    Returns:
        ``y``, as `conv` returns it.

    Raises:
        TypeError, ValueError: As in `conv`.

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
    options = ConvOptions(
        function="convolve",
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
    layout, spec, _ = options.resolve(x, kernel)
    return layout.restore_y(convolution(spec, layout.canonical_x(x), layout.canonical_kernel(kernel)))


@public
def convolve_input_gradient(
    dy: jax.Array,
    kernel: jax.Array,
    input_shape: tuple[int, ...],
    *,
    stride: Steps = 1,
    padding: PaddingOption = "VALID",
    dilation: Steps = 1,
    groups: int = 1,
    flip_kernel: bool = False,
    dimension_numbers: DimensionNumbers = None,
    precision: lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
    algorithm: str | None = None,
) -> jax.Array:
    """Computes the gradient of `convolve` with respect to its input, as a bilinear map of ``dy`` and ``kernel``.

        dx(b, i, c) = Σ_k Σ_n dy(b, p, k) · K(n, c, k)    over the p, n with p · stride + n · dilation − low = i

    Saved for the backward pass: ``dy`` and ``kernel``.

    Args:
        dy: The cotangent of ``y``, of ``y``'s shape and ``kernel``'s dtype.
        kernel: The weights, as in `conv`.
        input_shape: The shape of ``x``. With a stride, inputs of several shapes give a ``y`` of the same shape.
        stride, padding, dilation, groups, flip_kernel, dimension_numbers, precision, preferred_element_type, algorithm:
            As in `conv`. ``padding`` adds zeros, so it is not the name of another border.

    Returns:
        ``dx`` of ``input_shape``, in ``dy``'s dtype or ``preferred_element_type``.

    Raises:
        TypeError, ValueError: As in `conv`; or ``dy`` does not have the shape that the convolution returns.

    Example:
        >>> import jax.numpy as jnp, jaxbn
        >>> dy, kernel = jnp.ones((1, 3, 3, 2)), jnp.ones((3, 3, 1, 2))
        >>> jaxbn.convolve_input_gradient(dy, kernel, (1, 5, 5, 1)).shape
        (1, 5, 5, 1)

    References:
        Deck, D5.
    """
    dy, kernel = as_arrays("convolve_input_gradient", dy=dy, kernel=kernel)
    options = ConvOptions(
        function="convolve_input_gradient",
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
    layout, spec, _ = config = options.resolve(jax.ShapeDtypeStruct(tuple(input_shape), dy.dtype), kernel)
    _require_cotangent(options.function, config, dy, input_shape)
    return layout.restore_x(input_gradient(spec, layout.canonical_y(dy), layout.canonical_kernel(kernel)))


@public
def convolve_kernel_gradient(
    x: jax.Array,
    dy: jax.Array,
    kernel_shape: tuple[int, ...],
    *,
    stride: Steps = 1,
    padding: PaddingOption = "VALID",
    dilation: Steps = 1,
    groups: int = 1,
    flip_kernel: bool = False,
    dimension_numbers: DimensionNumbers = None,
    precision: lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
    algorithm: str | None = None,
) -> jax.Array:
    """Computes the gradient of `convolve` with respect to its kernel, as a bilinear map of ``x`` and ``dy``.

        dK(n, c, k) = Σ_b Σ_p x(b, p · stride + n · dilation − low, c) · dy(b, p, k)

    Saved for the backward pass: ``x`` and ``dy``.

    Args:
        x: The images, as in `conv`.
        dy: The cotangent of ``y``, of ``y``'s shape and ``x``'s dtype.
        kernel_shape: The shape of ``kernel``. With a stride, kernels of several shapes give a ``y`` of the same shape.
        stride, padding, dilation, groups, flip_kernel, dimension_numbers, precision, preferred_element_type, algorithm:
            As in `conv`. ``padding`` adds zeros, so it is not the name of another border.

    Returns:
        ``dK`` of ``kernel_shape``, in ``x``'s dtype or ``preferred_element_type``.

    Raises:
        TypeError, ValueError: As in `conv`; or ``dy`` does not have the shape that the convolution returns, or ``x``'s
            dtype.

    Example:
        >>> import jax.numpy as jnp, jaxbn
        >>> x, dy = jnp.ones((1, 5, 5, 1)), jnp.ones((1, 3, 3, 2))
        >>> jaxbn.convolve_kernel_gradient(x, dy, (3, 3, 1, 2)).shape
        (3, 3, 1, 2)

    References:
        Deck, D7.
    """
    x, dy = as_arrays("convolve_kernel_gradient", x=x, dy=dy)
    options = ConvOptions(
        function="convolve_kernel_gradient",
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
    layout, spec, _ = config = options.resolve(x, jax.ShapeDtypeStruct(tuple(kernel_shape), x.dtype))
    _require_cotangent(options.function, config, dy, x.shape)
    if dy.dtype != x.dtype:
        raise TypeError(f"{options.function}: `dy` has dtype {dy.dtype}, `x` has {x.dtype}; they must be the same")
    return layout.restore_kernel(kernel_gradient(spec, layout.canonical_x(x), layout.canonical_y(dy)))


def _require_cotangent(function: str, config: ConvConfig, dy: jax.Array, x_shape: Sequence[int]) -> None:
    """Raise unless ``dy`` has the shape that the convolution returns."""
    layout, geometry = config.layout, config.spec.geometry
    canonical = (x_shape[layout.x[0]], *geometry.output, geometry.out_features)
    wanted = tuple(canonical[layout.y.index(axis)] for axis in range(len(canonical)))
    if dy.shape != wanted:
        raise ValueError(
            f"{function}: `dy` has shape {dy.shape}; it must be {wanted}, the shape that the convolution of "
            f"an input of shape {tuple(x_shape)} returns with these options"
        )
