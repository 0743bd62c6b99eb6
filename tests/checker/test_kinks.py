"""`check_custom_vjp` at kinks and near singularities: right rules pass, and a wrong reference is still told."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbn.testing import VjpReport, check_custom_vjp
from tests.support.kinks import KINKS, largest, max_pool, safe_norm
from tests.support.layers import Function, with_rule
from tests.support.sample import in_turn

stop = jax.lax.stop_gradient
NUMBERS = jnp.arange(-3.0, 4.0)
TIES = jnp.asarray([[1.0, 2.0, 2.0, 2.0, 3.0, 3.0, 0.0]])
NEAR = jnp.asarray([1e-6, 1.0, 3.0])
POOLED = jnp.asarray(np.random.default_rng(0).integers(0, 2, (4, 6)), jnp.float32)


def check(function: Function, x: jax.Array, **options: Any) -> VjpReport:
    """Of a function against itself: what can fail is the reference alone."""
    options = {"transforms": (), "cotangents": "constant", "raise_on_failure": False, **options}
    return check_custom_vjp(function, function, x, **options)


@pytest.mark.parametrize(("name", "dtype"), in_turn(list(KINKS), [jnp.float32, jnp.float64]))
def test_no_false_alarm(name: str, dtype: Any) -> None:
    layer, seed = KINKS[name], int(dtype == jnp.float64)
    assert check_custom_vjp(layer.rule, layer.forward, *layer.arrays(seed, dtype), transforms=(), seed=seed).passed


RIGHT: dict[str, tuple[Function, jax.Array]] = {
    "abs": (jnp.abs, NUMBERS),
    "ReLU": (jax.nn.relu, NUMBERS),
    "1/x": (lambda x: 1 / x, NEAR),
    "square root": (jnp.sqrt, NEAR),
    "sort": (jnp.sort, TIES),
}


@pytest.mark.parametrize(("name", "seed"), in_turn(list(RIGHT), range(6)))
def test_a_right_reference_passes_for_every_seed(name: str, seed: int) -> None:
    function, x = RIGHT[name]
    assert check(function, x, seed=seed).passed


@pytest.mark.parametrize(
    ("function", "x", "kinks"),
    [(jnp.abs, NUMBERS, "1 of 7"), (largest, TIES, "1 of 1"), (safe_norm, 0 * TIES, "1 of 1")],
    ids=["abs", "max", "safe norm"],
)
def test_a_kink_is_said_to_be_one(function: Function, x: jax.Array, kinks: str) -> None:
    unchecked = dict(check(function, x).unchecked)
    assert unchecked["the reference's own gradient with respect to `x`"].startswith(f"{kinks} entries of the output")


def test_near_a_singularity_smaller_steps_settle_it() -> None:
    assert not check(lambda x: 1 / x, NEAR).unchecked


WRONG: dict[str, tuple[Function, jax.Array, str]] = {
    "abs": (lambda x: jnp.abs(x) * stop(x), NUMBERS, "7 of 7"),
    "all of abs": (lambda x: stop(jnp.abs(x)), NUMBERS, "7 of 7"),
    "a term beside ReLU": (lambda x: jax.nn.relu(x) + 0.1 * stop(x), NUMBERS, "7 of 7"),
    "one entry beside ReLU": (lambda x: jax.nn.relu(x).at[2].add(stop(x[2] ** 2)), NUMBERS, "1 of 7"),
    "a term of a sum with kinks": (lambda x: jnp.sum(jnp.abs(x) + stop(x)), NUMBERS, "1 of 1"),
    "a term of a sum with a singularity": (lambda x: jnp.sum(1 / x + stop(x)), NEAR, "1 of 1"),
    "beside 1/x": (lambda x: 1 / x + stop(x), NEAR[1:], "2 of 2"),
    "sort": (lambda x: jnp.sort(x) + stop(x), TIES, "7 of 7"),
    "max-pool": (lambda x: max_pool(x) * stop(max_pool(x) + 1), POOLED, "6 of 6"),
    "at zero alone": (lambda x: jnp.where(x == 0, 0.0, jnp.sin(x)), NUMBERS, "1 of 7"),
}


@pytest.mark.parametrize(("name", "seed"), in_turn(list(WRONG), range(3)))
def test_a_reference_with_a_stray_stop_gradient_is_named(name: str, seed: int) -> None:
    function, x, count = WRONG[name]
    report = check(function, x, seed=seed)
    assert [(each.check, each.argument) for each in report.failures] == [("reference", "x")]
    assert f"is wrong, for {count} entries of the output" in report.failures[0].message


@pytest.mark.parametrize(
    ("forward", "fwd", "bwd", "x"),
    [
        (jax.nn.relu, lambda x: (jax.nn.relu(x), x), lambda x, dy: (jnp.where(x >= 0, dy, 0),), NUMBERS),
        (
            largest,
            lambda x: (largest(x), x),
            lambda x, dy: (jax.nn.one_hot(jnp.argmax(x, 1), x.shape[1], dtype=x.dtype) * dy[:, None],),
            jnp.asarray([[1.0, 3.0, 3.0]]),
        ),
    ],
    ids=["ReLU", "max"],
)
def test_a_rule_that_is_wrong_at_a_kink_alone(forward: Function, fwd: Function, bwd: Function, x: jax.Array) -> None:
    """It is compared with autodiff there, which settles what the derivative at a kink is to be."""
    report = check_custom_vjp(with_rule(forward, fwd, bwd), forward, x, transforms=(), raise_on_failure=False)
    assert {failure.check for failure in report.failures} == {"gradient"}
    assert any("have a kink" in why for _, why in report.unchecked)


def test_a_pullback_that_cannot_be_transposed() -> None:
    """It leaves the reference unchecked and the rule compared with it."""

    def bwd(x: jax.Array, dy: jax.Array) -> Any:
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return (jax.pure_callback(lambda x, dy: np.where(np.asarray(x) >= 0, dy, -np.asarray(dy)), shape, x, dy),)

    report = check(with_rule(jnp.abs, lambda x: (jnp.abs(x), x), bwd), NUMBERS)
    assert report.passed
    assert any("its pullback cannot be transposed" in why for _, why in report.unchecked)


def rounded(x: jax.Array) -> jax.Array:
    return x.astype(jnp.float32).astype(x.dtype)


ROUNDING: dict[str, Function] = {
    "all of it": lambda x: rounded(jnp.sin(x)),
    "a term": lambda x: x - rounded(jnp.mean(x))[None],
}


@pytest.mark.parametrize(("name", "seed"), in_turn(list(ROUNDING), range(3)))
def test_a_reference_that_rounds_inside_is_not_called_wrong(name: str, seed: int) -> None:
    """Its values go in steps, which differences take for a slope of zero."""
    report = check(ROUNDING[name], NUMBERS + 0.1, seed=seed)
    assert report.passed
    assert any("rounds to a narrower dtype inside" in why for _, why in report.unchecked)


def test_a_gradient_that_is_nowhere_finite() -> None:
    indefinite = jnp.asarray([[1.0, 2.0], [2.0, 1.0]])
    with pytest.raises(ValueError, match="reference's own gradient is not finite anywhere"):
        check(jnp.linalg.cholesky, indefinite)
