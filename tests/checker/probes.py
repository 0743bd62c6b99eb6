"""Rules and references to tell a checker with a mistake from the right one, and what the right one finds."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import linear_call

from jaxbn.testing import Failure
from tests.support.kinks import KINKS
from tests.support.layers import BATCH_NORM, LAYERS, with_rule

Check = Callable[..., Any]


def sine(bwd: Any, fwd: Any = lambda x: (jnp.sin(x), x)) -> Any:
    return with_rule(jnp.sin, fwd, bwd)


def batch_norm(change: Callable[[jax.Array, jax.Array, jax.Array], Any]) -> Any:
    return with_rule(BATCH_NORM.forward, BATCH_NORM.fwd, lambda saved, dy: change(*BATCH_NORM.bwd(saved, dy)))


def of_sine(check: Check, bwd: Any, dtype: Any = jnp.float32, fwd: Any = None, **options: Any) -> Any:
    rule = sine(bwd, *([fwd] if fwd else []))
    return check(rule, jnp.sin, jnp.arange(1.0, 9.0, dtype=dtype), **options)


def of_batch_norm(check: Check, change: Any, shape: tuple[int, int] = (6, 4), **options: Any) -> Any:
    generator = np.random.default_rng(0)
    dtype = options.pop("dtype", jnp.float32)
    arrays = [jnp.asarray(generator.normal(size=size), dtype) for size in (shape, shape[1:], shape[1:])]
    return check(batch_norm(change), BATCH_NORM.forward, *arrays, **options)


def right_gelu(check: Check) -> Any:
    layer = LAYERS["GELU"]
    return check(layer.rule, layer.forward, *layer.arrays(0, jnp.float32))


def right_to_rounding(check: Check) -> Any:
    """Where autodiff is exact."""
    rule = with_rule(
        lambda x: 2 * x, lambda x: (2 * x, None), lambda _, dy: (dy * np.nextafter(np.float32(2), np.float32(3)),)
    )
    return check(rule, lambda x: 2 * x, jnp.arange(1.0, 9.0, dtype=jnp.float32))


def right_near_a_kink(check: Check) -> Any:
    return check(jax.nn.relu, jax.nn.relu, jnp.asarray([1.0, -1e-4, 2.0, 1e-4]))


def stopped_reference(check: Check) -> Any:
    def function(x: jax.Array) -> jax.Array:
        return jnp.sin(x) * jax.lax.stop_gradient(x)

    return check(function, function, jnp.arange(1.0, 4.0))


def stopped_beside_kinks(check: Check) -> Any:
    def function(x: jax.Array) -> jax.Array:
        return jnp.abs(x) + jax.lax.stop_gradient(x)

    return check(function, function, jnp.arange(-1.0, 2.0), cotangents="constant")


def stopped_at_zero(check: Check) -> Any:
    def function(x: jax.Array) -> jax.Array:
        return jnp.where(x == 0, 0.0, jnp.sin(x))

    return check(function, function, jnp.arange(-1.0, 2.0), cotangents="constant")


def impure_sine(check: Check) -> Any:
    kept = {}

    def fwd(x: jax.Array) -> Any:
        kept["x"] = x
        return jnp.sin(x), None

    return check(with_rule(jnp.sin, fwd, lambda _, dy: (jnp.cos(kept["x"]) * dy,)), jnp.sin, jnp.arange(3.0))


# With eigenvalues from 5e-5 to 3e4.
ROTATION = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
GRADED = jnp.asarray((ROTATION * np.geomspace(5e-5, 3e4, 4)) @ ROTATION.T)


def kinks(name: str) -> Callable[[Check], Any]:
    def probe(check: Check) -> Any:
        layer = KINKS[name]
        return check(layer.rule, layer.forward, *layer.arrays(0, jnp.float32), cotangents="constant")

    return probe


def wrong_under_vmap(check: Check) -> Any:
    @jax.custom_batching.custom_vmap
    def cosine(x: jax.Array) -> jax.Array:
        return jnp.cos(x)

    cosine.def_vmap(lambda size, which, x: (jnp.cos(x)[::-1], True))
    return of_sine(check, lambda x, dy: (cosine(x) * dy,), transforms="vmap")


def of_tangents(check: Check, tangent: Callable[[jax.Array, jax.Array], jax.Array]) -> Any:
    rule = jax.custom_jvp(jnp.sin)
    rule.defjvp(lambda primals, tangents: (jnp.sin(*primals), tangent(*primals, *tangents)))
    return check(rule, jnp.sin, jnp.arange(1.0, 9.0, dtype=jnp.float32), transforms="jvp")


def not_a_transpose(x: jax.Array, dx: jax.Array) -> jax.Array:
    return linear_call(lambda x, dx: jnp.cos(x) * dx, lambda x, dy: 2 * jnp.cos(x) * dy, x, dx)


def right(x: jax.Array, dy: jax.Array) -> Any:
    return (jnp.cos(x) * dy,)


PROBES: dict[str, Callable[[Check], Any]] = {
    "right": right_gelu,
    "right to rounding": right_to_rounding,
    "right near a kink": right_near_a_kink,
    "right in float64": lambda check: of_sine(check, right, jnp.float64),
    "sign": lambda check: of_sine(check, lambda x, dy: (-jnp.cos(x) * dy,)),
    "sign of the last": lambda check: of_batch_norm(check, lambda dx, dgamma, dbeta: (dx, dgamma, -dbeta)),
    "zero": lambda check: of_batch_norm(
        check, lambda dx, dgamma, dbeta: (0 * dx, dgamma, dbeta), cotangents="gaussian"
    ),
    "zero in bfloat16": lambda check: of_batch_norm(
        check, lambda dx, dgamma, dbeta: (0 * dx, dgamma, dbeta), (32, 32), dtype=jnp.bfloat16, cotangents="gaussian"
    ),
    "offset": lambda check: of_sine(check, lambda x, dy: (jnp.cos(x) * dy + 1,)),
    "dtype": lambda check: of_sine(check, lambda x, dy: ((jnp.cos(x) * dy).astype(jnp.float64),)),
    "value": lambda check: of_sine(check, right, fwd=lambda x: (jnp.sin(x) + 1, x)),
    "other function": lambda check: check(sine(right), jnp.cos, jnp.arange(3.0)),
    "reference": stopped_reference,
    "spread": lambda check: of_sine(check, lambda x, dy: (jnp.cos(x) * dy + 0 * jnp.sum(dy),)),
    "vmap": wrong_under_vmap,
    "second": lambda check: of_sine(
        check, lambda x, dy: (jnp.cos(jax.lax.stop_gradient(x)) * dy,), transforms="grad of grad"
    ),
    "jvp": lambda check: of_sine(check, right, transforms="jvp"),
    "sign of a tangent": lambda check: of_tangents(check, lambda x, dx: -jnp.cos(x) * dx),
    "not a transpose": lambda check: of_tangents(check, not_a_transpose),
    "right at kinks": kinks("sort with ties"),
    "right near a singularity": kinks("1/x near 0"),
    "ill-conditioned": lambda check: check(jnp.linalg.cholesky, jnp.linalg.cholesky, GRADED, cotangents="constant"),
    "reference beside kinks": stopped_beside_kinks,
    "reference at zero": stopped_at_zero,
    "clipped": lambda check: of_sine(check, lambda x, dy: (jnp.cos(x) * jnp.clip(dy, -1e4, 1e4),)),
    "small ones lost": lambda check: of_sine(check, lambda x, dy: (jnp.cos(x) * jnp.where(jnp.abs(dy) > 1e-9, dy, 0),)),
    "impure": impure_sine,
    "leak": lambda check: impure_sine(partial(check, transforms="checkpoint")),
}


def outcome(check: Check, probe: str) -> Any:
    """Which kinds of check fail, or what is raised."""

    def without_raising(*args: Any, **options: Any) -> Any:
        return check(*args, **{"transforms": (), **options}, raise_on_failure=False)

    try:
        report = PROBES[probe](without_raising)
    except (TypeError, ValueError) as error:
        return type(error).__name__
    return sorted({_kind(failure) for failure in report.failures})


def _kind(failure: Failure) -> str:
    where = f" under {failure.transformation}" if failure.check == "purity" and failure.transformation else ""
    return failure.check + where


EXPECTED: dict[str, Any] = {
    "right": [],
    "right to rounding": [],
    "right near a kink": [],
    "right in float64": [],
    "sign": ["gradient"],
    "sign of the last": ["gradient"],
    "zero": ["gradient"],
    "zero in bfloat16": ["gradient"],
    "offset": ["gradient", "linearity", "zero"],
    "dtype": ["structure"],
    "value": ["value"],
    "other function": "ValueError",
    "reference": ["reference"],
    "spread": ["isolation"],
    "vmap": ["gradient"],
    "second": ["second derivative"],
    "jvp": ["transformation"],
    "sign of a tangent": ["directional derivative", "gradient"],
    "not a transpose": ["gradient", "transpose"],
    "right at kinks": [],
    "right near a singularity": [],
    "ill-conditioned": [],
    "reference beside kinks": ["reference"],
    "reference at zero": ["reference"],
    "clipped": ["linearity"],
    "small ones lost": ["linearity"],
    "impure": ["purity"],
    "leak": ["purity", "purity under checkpoint"],
}
