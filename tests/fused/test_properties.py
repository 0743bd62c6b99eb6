"""Properties that hold whatever the numbers are."""

import jax
import jax.numpy as jnp
import pytest

import jaxbn
from tests.fused.cases import COVERING_CASES, MASKED_CASES
from tests.support.cases import Case
from tests.support.compare import Function
from tests.support.properties import (
    assert_linear,
    assert_nan_under_the_mask_meets_no_arithmetic,
    assert_zero_gives_zero,
)


@pytest.mark.parametrize("case", COVERING_CASES, ids=str)
def test_a_zero_cotangent_gives_exactly_zero(case: Case) -> None:
    assert_zero_gives_zero(case)


@pytest.mark.parametrize("case", COVERING_CASES, ids=str)
def test_the_pullback_is_linear(case: Case) -> None:
    assert_linear(case)


@pytest.mark.parametrize("case", MASKED_CASES, ids=str)
def test_a_nan_under_the_mask_meets_no_arithmetic(case: Case) -> None:
    assert_nan_under_the_mask_meets_no_arithmetic(case)


def test_the_fused_relu_is_flat_at_zero_as_jaxs_own() -> None:
    """A channel of equal values with β = 0 lies on the corner."""
    x, zeros = jnp.ones((4, 3)), jnp.zeros(3)

    def beta_gradient(operation: Function) -> jax.Array:
        return jax.grad(lambda beta: jnp.sum(operation(x, None, beta)[0]))(zeros)

    assert beta_gradient(jaxbn.batch_norm_relu).tolist() == beta_gradient(jaxbn.reference.batch_norm_relu).tolist()
