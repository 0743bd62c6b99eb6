"""Checks the activation after a batch norm, and differentiates through it.

An activation is any elementwise function of one array. A rule recomputes the activation's argument z from the residuals
and differentiates the activation there, so that no array of z's size is saved for it. The function is traced once.
Arrays that it closes over, such as the slope of a PReLU, become operands of the rule and get gradients.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import eval_jaxpr
from jax.extend.core import Jaxpr, Var, jaxprs_in_params

from jaxbn._norm.statistics import apply_mask

Activation = Callable[..., jax.Array]
"""A function of z and of the arrays that the caller's function closes over."""

CALLS = frozenset(
    ("jit", "pjit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call", "checkpoint", "remat2")
)
"""JAX's operations that call a function with their operands."""

_NAMES = """
    abs acos acosh add and asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt ceil clamp convert_element_type copy
    copy_p cos cosh digamma div eq erf erf_inv erfc exp exp2 expm1 floor ge gt igamma igammac integer_pow is_finite le
    lgamma log log1p logistic lt max min mul name ne neg nextafter not optimization_barrier or polygamma pow pvary
    reduce_precision regularized_incomplete_beta rem reshard round rsqrt select_n shift_left shift_right_arithmetic
    shift_right_logical sign sin sinh sqrt square sub tan tanh xor zeta
"""
ELEMENTWISE = frozenset(_NAMES.split())
"""JAX's operations in which every entry of the result depends only on the same entry of each operand."""


def as_activation(function: str, activation: Any, z: jax.ShapeDtypeStruct) -> tuple[Activation, tuple[Any, ...]]:
    """Returns the activation as a function of z and of the arrays that it closes over, and these arrays.

    Args:
        function: The name of the public function, for errors.
        activation: The caller's function.
        z: The type of the array that the activation will be called with.

    Raises:
        TypeError: It is not a function, or does not return one array of real numbers.
        ValueError: It changes the shape, or is not elementwise.
    """
    if not callable(activation):
        raise TypeError(
            f"{function}: `activation` is {activation!r}; it must be a function of one array, such as jax.nn.silu"
        )
    closed, y = jax.make_jaxpr(activation, return_shape=True)(z)
    if not hasattr(y, "shape") or not (jnp.issubdtype(y.dtype, jnp.floating) or y.dtype == jnp.bool_):
        raise TypeError(f"{function}: `activation` returns {y}; it must return one array of real numbers")
    if y.shape != z.shape:
        raise ValueError(f"{function}: `activation` turns the shape {z.shape} into {y.shape}; it must keep the shape")
    operation = _not_elementwise(closed.jaxpr, [True])
    if operation is not None:
        raise ValueError(
            f"{function}: `activation` is not elementwise: it calls {operation}; every entry of its result must depend "
            "on the same entry of its argument alone"
        )

    def apply(z: jax.Array, *constants: jax.Array) -> jax.Array:
        (y,) = eval_jaxpr(closed.jaxpr, constants, z)
        return y.astype(z.dtype)

    return apply, tuple(closed.consts)


def activated(activation: Activation | None, z: jax.Array, constants: Sequence[jax.Array]) -> jax.Array:
    return z if activation is None else activation(z, *constants)


def through_activation(
    activation: Activation | None,
    z: jax.Array,
    constants: Sequence[jax.Array],
    dy: jax.Array,
    where: jax.Array | None = None,
) -> tuple[jax.Array, tuple[jax.Array | None, ...]]:
    """Returns ``dz`` and the cotangents of the arrays that the activation closes over.

    ``dz`` is 0 where the mask is False.
    """
    if activation is None:
        return dy, ()
    _, pullback = jax.vjp(activation, z, *constants)
    dz, *dconstants = pullback(dy)
    # Integers have no cotangents.
    return apply_mask(dz, where), tuple(None if each.dtype == jax.dtypes.float0 else each for each in dconstants)


def tangent_through_activation(
    activation: Activation | None,
    z: jax.Array,
    constants: Sequence[jax.Array],
    dz: jax.Array,
    dconstants: Sequence[jax.Array | None],
) -> jax.Array:
    """Returns ``dy``. A tangent that is ``None`` stands for zero."""
    if activation is None:
        return dz
    pairs = zip(constants, dconstants, strict=True)
    tangents = [_zero_tangent(constant) if tangent is None else tangent for constant, tangent in pairs]
    return jax.jvp(activation, (z, *constants), (dz, *tangents))[1]


def _zero_tangent(constant: Any) -> Any:
    if jnp.issubdtype(constant.dtype, jnp.inexact):
        return jnp.zeros_like(constant)
    return np.zeros(constant.shape, jax.dtypes.float0)


def _not_elementwise(jaxpr: Jaxpr, depends: Sequence[bool]) -> str | None:
    """Returns the first operation on z that is not elementwise, or None. ``depends`` says which inputs depend on z."""
    dependent = {variable for variable, does in zip(jaxpr.invars, depends, strict=True) if does}
    for equation in jaxpr.eqns:
        inputs = [isinstance(each, Var) and each in dependent for each in equation.invars]
        if not any(inputs):
            continue
        name = equation.primitive.name
        if name in CALLS:
            (called,) = jaxprs_in_params(equation.params)
            operation = _not_elementwise(called, inputs)
            if operation is not None:
                return operation
        elif name not in ELEMENTWISE:
            return name
        dependent.update(equation.outvars)
    return None
