"""Every rule passes `check_custom_vjp`, as a user's rule must, in all its dtypes."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbn
from jaxbn.testing import check_custom_vjp
from tests.support.cases import Case, conv_case
from tests.support.layers import TRANSFORMS
from tests.support.rules import DTYPES, assert_passes
from tests.support.sample import in_turn

CASES = [
    conv_case("conv", 2, ((3, 2), (1, 2), (2, 1)), "SAME", (2, 2, 2), None, flip_kernel=True),
    conv_case("conv_transpose", 1, ((3,), 2, 1), 1, (3, 5, 1), None),
]


@pytest.mark.parametrize(("case", "dtype"), in_turn(CASES, DTYPES))
def test_rules(case: Case, dtype: Any) -> None:
    assert_passes(case, dtype)


class Map(NamedTuple):
    """A bilinear map whose derivatives are primitives with rules of their own, and the same by ``lax``."""

    rule: Callable[..., Any]
    reference: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...]


WINDOW: dict[str, Any] = {"stride": (1, 2), "padding": "SAME"}


X, KERNEL, DY = (2, 4, 5, 2), (3, 2, 2, 3), (2, 4, 3, 3)


plain_conv = partial(jaxbn.reference.conv, **WINDOW)


def plain_input_gradient(dy: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.vjp(lambda x: plain_conv(x, kernel), jnp.zeros(X, dy.dtype))[1](dy)[0]


def plain_kernel_gradient(x: jax.Array, dy: jax.Array) -> jax.Array:
    return jax.vjp(lambda kernel: plain_conv(x, kernel), jnp.zeros(KERNEL, x.dtype))[1](dy)[0]


GENERAL: dict[str, Any] = {
    "window_strides": (2, 1),
    "padding": ((1, 0), (2, 1)),
    "lhs_dilation": (1, 2),
    "rhs_dilation": (2, 1),
    "feature_group_count": 2,
}


MAPS = {
    "conv_general_dilated": Map(
        partial(jaxbn.conv_general_dilated, **GENERAL),
        partial(jax.lax.conv_general_dilated, **GENERAL),
        ((2, 4, 5, 3), (6, 2, 2, 3)),
    ),
    "convolve": Map(partial(jaxbn.convolve, **WINDOW), plain_conv, (X, KERNEL)),
    "convolve_input_gradient": Map(
        lambda dy, kernel: jaxbn.convolve_input_gradient(dy, kernel, X, **WINDOW), plain_input_gradient, (DY, KERNEL)
    ),
    "convolve_kernel_gradient": Map(
        lambda x, dy: jaxbn.convolve_kernel_gradient(x, dy, KERNEL, **WINDOW), plain_kernel_gradient, (X, DY)
    ),
}


@pytest.mark.parametrize(("name", "dtype"), in_turn(list(MAPS), DTYPES))
def test_maps(name: str, dtype: Any) -> None:
    """Forward mode as well, which they have."""
    rule, reference, shapes = MAPS[name]
    generator = np.random.default_rng(0)
    arrays = [jnp.asarray(generator.normal(size=shape), dtype) for shape in shapes]
    report = check_custom_vjp(rule, reference, *arrays, transforms=TRANSFORMS[dtype])
    assert {what for what, _ in report.unchecked} <= {"full Jacobian"}
    assert dtype != jnp.float32 or "jvp" in report.checked
