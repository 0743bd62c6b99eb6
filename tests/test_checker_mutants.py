"""Mutants of the checker itself: one that skips a comparison, or swaps a tolerance, is told from the right one."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbn.testing import Failure, check_custom_vjp
from tests.cases import Case
from tests.kinks import KINKS
from tests.layers import BATCH_NORM, LAYERS, with_rule
from tests.mutants import Mutant, mutated

pytestmark = pytest.mark.usefixtures("quickly_compiled", "compiled_once")

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


class CheckerMutant(NamedTuple):
    name: str
    module: str
    old: str
    new: str
    probe: str

    def __str__(self) -> str:
        return self.name


MUTANTS = [
    CheckerMutant("nothing is compared", "precision", "    error = np.abs(", "    error = 0 * np.abs(", "sign"),
    CheckerMutant("nothing is usable", "precision", "usable = np.isfinite(want)", "usable = np.isnan(want)", "sign"),
    CheckerMutant(
        "the tighter tolerance",
        "precision",
        "max(4 * autodiff, floor)",
        "min(4 * autodiff, floor)",
        "right to rounding",
    ),
    CheckerMutant(
        "the floor has no end",
        "precision",
        "min(8 * leaf.eps * np.sqrt(size), 0.25)",
        "8 * leaf.eps * np.sqrt(size)",
        "zero in bfloat16",
    ),
    CheckerMutant(
        "tolerance from ours", "precision", "score.autodiff_error for score", "score.error for score", "sign"
    ),
    CheckerMutant(
        "the first leaf alone", "collector", "enumerate(leaves)", "enumerate(leaves[:1])", "sign of the last"
    ),
    CheckerMutant("error and budget swapped", "collector", ".error <= allowed:", ".error >= allowed:", "right"),
    CheckerMutant(
        "truth in float32", "oracle", "with jax.enable_x64(True):", "with jax.enable_x64(False):", "right in float64"
    ),
    CheckerMutant(
        "constant cotangents",
        "cotangents",
        "jnp.asarray(generator.standard_normal(y.shape), y.dtype)",
        "jnp.ones(y.shape, y.dtype)",
        "zero",
    ),
    CheckerMutant("zero is not compared", "gradients", "(got != 0) & (", "(got != got) & (", "offset"),
    CheckerMutant(
        "linearity is not compared", "gradients", "trial_against(label, got,", "trial_against(label, want,", "offset"
    ),
    CheckerMutant(
        "runs that agree fail", "gradients", "first.tobytes() != second", "first.tobytes() == second", "right"
    ),
    CheckerMutant("dtypes are not compared", "structure", "if got.dtype != dtype:", "if False:", "dtype"),
    CheckerMutant(
        "the value under differentiation is not compared",
        "values",
        "        if score.error > allowed:\n            collector",
        "        if False:\n            collector",
        "value",
    ),
    CheckerMutant(
        "values are not compared",
        "values",
        "        if score.error > allowed:\n            raise",
        "        if False:\n            raise",
        "other function",
    ),
    CheckerMutant("any order will do", "taylor", "order < 1.5", "order < 0.5", "reference"),
    CheckerMutant(
        "any difference will do",
        "neighbourhood",
        "<= 4 * uncertainty",
        "<= 4 * uncertainty + np.inf",
        "reference beside kinks",
    ),
    CheckerMutant(
        "no difference will do", "neighbourhood", "<= 4 * uncertainty", "< 0 * uncertainty", "right near a singularity"
    ),
    CheckerMutant(
        "a kink is a jump",
        "neighbourhood",
        "jumps, axis=0) & ~np.any(kinks",
        "kinks, axis=0) & np.any(kinks",
        "right at kinks",
    ),
    CheckerMutant(
        "jumps are not compared", "neighbourhood", "outside > 10 *", "outside > np.inf *", "reference at zero"
    ),
    CheckerMutant(
        "large cotangents are not tried", "gradients", "return half, -half", "return -half, -half", "clipped"
    ),
    CheckerMutant(
        "small cotangents are not tried", "gradients", "return half, -half", "return half, half", "small ones lost"
    ),
    CheckerMutant("purity is not compared", "purity", "collector.judge([trial],", "collector.judge([],", "impure"),
    CheckerMutant(
        "a leak passes", "collector", "if isinstance(error, jax.errors.UnexpectedTracerError):", "if False:", "leak"
    ),
    CheckerMutant("NaN is expected to spread", "isolation", "if mine - theirs:", "if theirs - mine:", "spread"),
    CheckerMutant(
        "transformations are not compared", "transformations", "collector.judge(trials,", "collector.judge((),", "vmap"
    ),
    CheckerMutant(
        "second derivatives are not compared", "derivatives", "collector.judge(trials,", "collector.judge((),", "second"
    ),
    CheckerMutant(
        "what is not supported passes",
        "collector",
        "        if transformation in self.requested:\n",
        "        if False:\n",
        "jvp",
    ),
]


@pytest.mark.parametrize("probe", PROBES)
def test_the_checker_as_it_is(probe: str) -> None:
    assert outcome(check_custom_vjp, probe) == EXPECTED[probe]


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_every_mutant_of_the_checker_is_told(mutant: CheckerMutant) -> None:
    name, module, old, new, probe = mutant
    unused = Case("conv", {})
    with mutated(Mutant(name, f"testing.{module}", old, new, unused)) as package:
        assert outcome(package.testing.check_custom_vjp, probe) != EXPECTED[probe]
