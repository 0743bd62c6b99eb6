"""Below float64 the rules are as precise as autodiff of the reference in the same dtype, and keep every dtype."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbn
from tests.norm.cases import COVERING_CASES
from tests.support.cases import Case, norm_case
from tests.support.precision import DTYPES, assert_cotangents_have_their_primals_dtypes, assert_precise, facts
from tests.support.sample import covering, in_turn, rotated

pytestmark = pytest.mark.optimised

LARGE = [norm_case(name, (16, 8, 8, 3), -1, (1, 1)) for name in ("batch_norm", "batch_norm_inference")]


@pytest.fixture(autouse=True)
def whole_products() -> Iterator[None]:
    """A GPU multiplies float32 with ten bits unless told otherwise, in some of its algorithms."""
    with jax.default_matmul_precision("highest"):
        yield


@pytest.mark.parametrize("pair", covering(rotated([*COVERING_CASES, *LARGE], DTYPES), facts))
def test_the_precision_rule(pair: tuple[Case, Any]) -> None:
    assert_precise(*pair)


@pytest.mark.parametrize(("case", "dtype"), in_turn(COVERING_CASES, [*DTYPES, jnp.float64]))
def test_cotangents_have_their_primals_dtypes(case: Case, dtype: Any) -> None:
    """Vectors beside ``x`` may have another dtype, as float32 parameters beside bfloat16 images."""
    assert_cotangents_have_their_primals_dtypes(case, dtype)


def test_half_precision_is_normalised_in_float32() -> None:
    """The mean is 64.25 and the deviation ¼: half of that is lost where the subtraction is done in bfloat16."""
    x = jnp.tile(jnp.array([[64.0], [64.5]], jnp.bfloat16), (8, 1))
    y, moments = jaxbn.batch_norm(x, epsilon=1e-12)
    assert moments.mean.tolist() == [64.25]
    assert y[:2, 0].tolist() == [-1.0, 1.0]


def test_an_offset_does_not_cost_the_variance_its_digits() -> None:
    """``E[x²] − E[x]²`` has three digits left at a mean of 1000 and none at ten times that."""
    x = np.random.default_rng(0).normal(1e4, 1.0, size=(512, 3)).astype(np.float32)
    _, moments = jaxbn.batch_norm(jnp.asarray(x))
    exact = x.astype(np.float64)
    np.testing.assert_allclose(moments.mean, exact.mean(0), rtol=1e-6)
    np.testing.assert_allclose(moments.var, exact.var(0), rtol=1e-4)


def test_statistics_of_half_precision_are_in_float32() -> None:
    for dtype in (jnp.bfloat16, jnp.float16):
        # 4096 values of 1 and 4096 of 3: a sum in half precision stops growing long before.
        x = jnp.concatenate([jnp.ones((4096, 2), dtype), jnp.full((4096, 2), 3, dtype)])
        y, moments = jaxbn.batch_norm(x)
        assert (y.dtype, moments.mean.dtype, moments.var.dtype) == (dtype, jnp.float32, jnp.float32)
        assert moments.mean.tolist() == [2, 2]
        assert moments.var.tolist() == [1, 1]
        assert moments.count.tolist() == [8192, 8192]
        assert moments.count.dtype == jnp.int32
