"""Below float64 the rules are as precise as autodiff of the reference in the same dtype, and keep every dtype."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from tests.fused.cases import COVERING_CASES
from tests.support.cases import Case
from tests.support.precision import DTYPES, assert_cotangents_have_their_primals_dtypes, assert_precise
from tests.support.sample import in_turn

pytestmark = pytest.mark.optimised


@pytest.fixture(autouse=True)
def whole_products() -> Iterator[None]:
    """A GPU multiplies float32 with ten bits unless told otherwise, in some of its algorithms."""
    with jax.default_matmul_precision("highest"):
        yield


@pytest.mark.parametrize(("case", "dtype"), in_turn(COVERING_CASES, DTYPES))
def test_the_precision_rule(case: Case, dtype: Any) -> None:
    assert_precise(case, dtype)


@pytest.mark.parametrize(("case", "dtype"), in_turn(COVERING_CASES, [*DTYPES, jnp.float64]))
def test_cotangents_have_their_primals_dtypes(case: Case, dtype: Any) -> None:
    """Vectors beside ``x`` may have another dtype, as float32 parameters beside bfloat16 images."""
    assert_cotangents_have_their_primals_dtypes(case, dtype)
