"""Rules of the project, checked by `check_custom_vjp` as a user's rule is."""

from typing import Any

import jax.numpy as jnp

import jaxbn
from jaxbn.testing import check_custom_vjp
from tests.support.cases import Case
from tests.support.compare import jitted
from tests.support.layers import TRANSFORMS

DTYPES = list(TRANSFORMS)


def assert_passes(case: Case, dtype: Any) -> None:
    """Everything is checked but forward mode, which a `jax.custom_vjp` has not, and a Jacobian that is too large."""
    functions = case.function(jaxbn), jitted(case.function(jaxbn.reference))
    report = check_custom_vjp(*functions, *case.arrays(dtype=dtype), transforms=TRANSFORMS[dtype])
    unchecked = {what for what, _ in report.unchecked}
    assert unchecked <= {"jvp", "full Jacobian"}, unchecked


def assert_passes_in_parts(case: Case, dtype: Any) -> None:
    """``case`` computes in parts what the reference computes in one place."""
    functions = case.function(jaxbn), jitted(case.plain.function(jaxbn.reference))
    transforms = "grad of grad" if dtype == jnp.float32 and case.options["spread"] != "vmap" else ()
    assert check_custom_vjp(*functions, *case.arrays(dtype=dtype), transforms=transforms).passed
