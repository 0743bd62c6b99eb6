"""Every rule equals autodiff of the unmodified forward, in float64, on the whole table."""

import jax
import pytest

import jaxbn
from tests.support.cases import ALL_CASES, CONV_CASES, CONV_TRANSPOSE_CASES, NORM_CASES, Case
from tests.support.compare import assert_close, cotangents, jitted_pullback, true_pullback


@pytest.mark.parametrize("case", ALL_CASES, ids=str)
def test_value_and_pullback_equal_autodiff_of_the_reference(case: Case) -> None:
    ours, reference = jitted_pullback(case.function(jaxbn)), true_pullback(case.function(jaxbn.reference))
    arrays = case.arrays()
    shapes = jax.eval_shape(case.function(jaxbn), *arrays)
    for seed in range(3):
        dy = cotangents(shapes, seed)
        (y, gradients), (y_wanted, wanted) = ours(arrays, dy), reference(arrays, dy)
        assert_close(y, y_wanted, 1e-12)
        for name, got, want in zip(case.names, gradients, wanted, strict=True):
            assert_close(got, want, case.tolerance if name == "x" else 1e-12, [name])


def test_the_table_is_as_large_as_it_is_meant_to_be() -> None:
    assert len(CONV_CASES) >= 120
    assert len(CONV_TRANSPOSE_CASES) >= 60
    assert len([case for case in NORM_CASES if case.operation == "batch_norm"]) >= 40
    assert len({str(case) for case in ALL_CASES}) == len(ALL_CASES)
