"""Three bilinear maps, each the derivative of the others (D3, D5, D7).

With channels last, ``i = p · stride + n · dilation − low`` (see `geometry`), and sums over whatever is not on the left:

    convolve          y(b, p, k)  = Σ x(b, i, c) · K(n, c, k)
    input_gradient    dx(b, i, c) = Σ dy(b, p, k) · K(n, c, k)
    kernel_gradient   dK(n, c, k) = Σ x(b, i, c) · dy(b, p, k)

They are one sum ``Σ x · K · dy`` with one factor taken away, so the derivative of each map in each of its arguments is
again one of the three: derivatives of every order need no other code. Correlations all: a kernel is rotated by its
caller where the deck's convolution is wanted.
"""

from functools import partial

import jax
import jax.numpy as jnp

from jaxbn._conv import families
from jaxbn._conv.algorithms import dense
from jaxbn._conv.arithmetic import Arithmetic
from jaxbn._conv.geometry import ConvGeometry
from jaxbn._conv.primitives import bind, define_bilinear, define_derivatives
from jaxbn._sharding import sharding


def convolve(geometry: ConvGeometry, arithmetic: Arithmetic, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """``y(b, p, k) = Σ x(b, i, c) · K(n, c, k)``: the forward (D3)."""
    return _bind(_convolve, geometry, arithmetic, x, kernel)


def input_gradient(geometry: ConvGeometry, arithmetic: Arithmetic, dy: jax.Array, kernel: jax.Array) -> jax.Array:
    """``dx(b, i, c) = Σ dy(b, p, k) · K(n, c, k)`` (D5)."""
    return _bind(_input_gradient, geometry, arithmetic, dy, kernel)


def kernel_gradient(geometry: ConvGeometry, arithmetic: Arithmetic, x: jax.Array, dy: jax.Array) -> jax.Array:
    """``dK(n, c, k) = Σ x(b, i, c) · dy(b, p, k)`` (D7)."""
    return _bind(_kernel_gradient, geometry, arithmetic, x, dy)


def _bind(primitive, geometry, arithmetic, left, right):
    return bind(primitive, left, right, geometry=geometry, arithmetic=arithmetic)


def _plain_convolve(x: jax.Array, kernel: jax.Array, *, geometry: ConvGeometry, arithmetic: Arithmetic) -> jax.Array:
    return dense.convolve(geometry, arithmetic, x, kernel)


def _plain_input_gradient(
    dy: jax.Array, kernel: jax.Array, *, geometry: ConvGeometry, arithmetic: Arithmetic
) -> jax.Array:
    if 0 in geometry.output:
        shape = (dy.shape[0], *geometry.input, geometry.in_features)
        return jnp.broadcast_to(_contraction(dy, kernel, arithmetic), shape)
    return dense.input_gradient(geometry, arithmetic, dy, kernel)


def _plain_kernel_gradient(x: jax.Array, dy: jax.Array, *, geometry: ConvGeometry, arithmetic: Arithmetic) -> jax.Array:
    """Any contraction will do here. JAX's convolution does not: its type knows no sharded axis that is summed over.

    It is as right to know none in space: XLA's partitioner then sums over devices that hold copies.
    """
    for name, array in (("x", x), ("dy", dy)):
        spec = sharding(array)
        if any(axis is not None for axis in spec[1:-1]):
            raise ValueError(
                f"the gradient of a convolution's kernel: `{name}` is spread over devices along its spatial axes, "
                f"{spec} in channels-last order; spread it along the batch, or jax.sharding.reshard it before"
            )
    shape = (*geometry.window, geometry.in_features // geometry.groups, geometry.out_features)
    return jnp.broadcast_to(_contraction(x, dy, arithmetic), shape)


def _contraction(left: jax.Array, right: jax.Array, arithmetic: Arithmetic) -> jax.Array:
    return (jnp.sum(left) * jnp.sum(right)).astype(arithmetic.result_type(left))


_convolve = define_bilinear("convolve", _plain_convolve, partial(families.compute, "convolve"))
_input_gradient = define_bilinear("input_gradient", _plain_input_gradient, partial(families.compute, "input_gradient"))
_kernel_gradient = define_bilinear(
    "kernel_gradient", _plain_kernel_gradient, partial(families.compute, "kernel_gradient")
)

# With respect to the left operand, then to the right one; and whether dy, dx or dK goes in on the left.
define_derivatives(_convolve, (_input_gradient, True), (_kernel_gradient, False))
define_derivatives(_input_gradient, (_convolve, True), (_kernel_gradient, True))
define_derivatives(_kernel_gradient, (_input_gradient, False), (_convolve, False))
