"""Taylor mode, `jax.experimental.jet`, through the bilinear maps: equal to nested forward mode of ``lax``'s own."""

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from math import factorial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental.jet import jet

import jaxbn
from tests.support.compare import assert_close

ORDER = 3

Map = Callable[..., Any]

GEOMETRIES: dict[str, tuple[dict[str, Any], tuple[int, ...], tuple[int, ...]]] = {
    "one dimension": ({"window_strides": (1,), "padding": "SAME"}, (2, 3, 7), (4, 3, 3)),
    "stride, groups": (
        {"window_strides": (2, 1), "padding": ((1, 0), (0, 2)), "feature_group_count": 2},
        (2, 4, 6, 5),
        (6, 2, 3, 2),
    ),
    "dilations": (
        {"window_strides": (1, 1), "padding": ((0, 1), (1, 0)), "lhs_dilation": (2, 1), "rhs_dilation": (1, 2)},
        (2, 3, 4, 5),
        (2, 3, 3, 2),
    ),
    "groups of the batch, channels last": (
        {
            "window_strides": (1, 2),
            "padding": "SAME_LOWER",
            "batch_group_count": 2,
            "dimension_numbers": ("NHWC", "HWIO", "NHWC"),
        },
        (4, 5, 6, 3),
        (3, 2, 3, 4),
    ),
}


def curves(*shapes: tuple[int, ...]) -> tuple[list[jax.Array], list[list[jax.Array]]]:
    """For each operand where it is at t = 0, and its derivatives in t there."""
    rng = np.random.default_rng(sum(map(sum, shapes)))
    points = [jnp.asarray(rng.normal(size=shape)) for shape in shapes]
    return points, [[jnp.asarray(rng.normal(size=shape)) for _ in range(ORDER)] for shape in shapes]


def taylor(function: Map, points: Any, series: Any) -> Any:
    return jax.jit(partial(jet, function))(points, series)


@partial(jax.jit, static_argnums=0)
def derivatives(function: Map, points: Any, series: Any) -> Any:
    """Of ``function`` along the curves, by forward mode upon forward mode."""

    def along(t: jax.Array) -> Any:
        curve = [
            point + sum((t ** (n + 1) / factorial(n + 1)) * term for n, term in enumerate(terms))
            for point, terms in zip(points, series, strict=True)
        ]
        return function(*curve)

    found = [along]
    for _ in range(ORDER):
        found.append(jax.jacfwd(found[-1]))
    value, *others = (each(jnp.zeros(())) for each in found)
    return value, jax.tree.map(lambda *terms: list(terms), *others)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_a_convolution_s_taylor_series(name: str) -> None:
    options, *shapes = GEOMETRIES[name]
    ours, theirs = (partial(f, **options) for f in (jaxbn.conv_general_dilated, lax.conv_general_dilated))
    curve = curves(*shapes)
    got = taylor(ours, *curve)
    assert_close(got, derivatives(theirs, *curve), 1e-12)
    assert_close(got, taylor(theirs, *curve), 1e-12)


@pytest.mark.parametrize("moving", [0, 1])
def test_one_operand_alone_may_move(moving: int) -> None:
    options, *shapes = GEOMETRIES["stride, groups"]
    points, series = curves(*shapes)

    def of_one(function: Map) -> Map:
        return lambda moved: function(*(moved if place == moving else points[place] for place in (0, 1)), **options)

    curve = [points[moving]], [series[moving]]
    ours, theirs = (of_one(f) for f in (jaxbn.conv_general_dilated, lax.conv_general_dilated))
    assert_close(taylor(ours, *curve), taylor(theirs, *curve), 1e-12)


def test_the_gradients_maps_have_taylor_series_too() -> None:
    options: dict[str, Any] = {"stride": (2, 1), "padding": ((1, 0), (0, 2)), "groups": 2}
    x, kernel, dy = (2, 6, 5, 4), (3, 2, 2, 6), (2, 3, 6, 6)

    def ours(dy: jax.Array, x: jax.Array, kernel: jax.Array) -> Any:
        dx = jaxbn.convolve_input_gradient(dy, kernel, x.shape, **options)
        return dx, jaxbn.convolve_kernel_gradient(x, dy, kernel.shape, **options)

    def theirs(dy: jax.Array, x: jax.Array, kernel: jax.Array) -> Any:
        return jax.vjp(partial(jaxbn.reference.conv, **options), x, kernel)[1](dy)

    curve = curves(dy, x, kernel)
    assert_close(taylor(ours, *curve), derivatives(theirs, *curve), 1e-12)


def test_of_a_gradient_of_many_under_jit() -> None:
    def gradients(function: Map, x: jax.Array, kernel: jax.Array) -> Any:
        return jax.grad(lambda *operands: jnp.sum(function(*operands, padding="SAME") ** 3), (0, 1))(x, kernel)

    def series(function: Map, points: Any, series: Any) -> Any:
        return jet(partial(gradients, function), points, series)

    points, terms = curves((3, 2, 5, 4, 2), (3, 3, 2, 2, 3))
    got = jax.jit(jax.vmap(partial(series, jaxbn.convolve)))(points, terms)
    for member in range(3):
        one = jax.tree.map(lambda array, member=member: array[member], (points, terms))
        want = derivatives(partial(gradients, jaxbn.reference.conv), *one)
        assert_close(jax.tree.map(lambda array, member=member: array[member], got), want, 1e-12)


PROGRAM = """
import sys
import jax, jax.numpy as jnp
import jaxbn

conv = jax.jit(lambda x, kernel: jaxbn.conv_general_dilated(x, kernel, (1,), "VALID"))
x, kernel = jnp.ones((1, 1, 4)), jnp.ones((1, 1, 2))
conv(x, kernel)
assert "jax.experimental.jet" not in sys.modules

from jax.experimental.jet import jet
y, terms = jet(conv, (x, kernel), ([x, 0 * x], [kernel, 0 * kernel]), factorial_scaled=False)
print(y[0, 0, 0], terms[0][0, 0, 0], terms[1][0, 0, 0])
"""


def test_jet_is_imported_by_its_user_alone_also_after_the_program_was_traced() -> None:
    """``2 (1 + t)² = 2 + 4 t + 2 t²``."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=Path(__file__).parents[2], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["2.0", "4.0", "2.0"]
