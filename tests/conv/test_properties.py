"""Properties that hold whatever the numbers are, and shapes and options drawn at random."""

from functools import partial

import hypothesis.strategies as st
import jax
import pytest
from hypothesis import given

import jaxbn
from tests.conv.cases import COVERING_CASES
from tests.support.cases import Case, conv_case
from tests.support.compare import assert_close, cotangents, pullback
from tests.support.properties import assert_linear, assert_zero_gives_zero


@pytest.mark.parametrize("case", COVERING_CASES, ids=str)
def test_a_zero_cotangent_gives_exactly_zero(case: Case) -> None:
    assert_zero_gives_zero(case)


@pytest.mark.parametrize("case", COVERING_CASES, ids=str)
def test_the_pullback_is_linear(case: Case) -> None:
    assert_linear(case)


def one_for_each(spatial: int, least: int, most: int) -> st.SearchStrategy[tuple[int, ...]]:
    return st.tuples(*[st.integers(least, most)] * spatial)


@given(data=st.data())
@pytest.mark.parametrize("operation", ["conv", "conv_transpose"])
def test_convolutions_of_any_geometry(operation: str, data: st.DataObject) -> None:
    spatial = data.draw(st.integers(1, 2), "spatial")
    each = partial(one_for_each, spatial)
    pairs = st.tuples(*[st.tuples(st.integers(-3, 3), st.integers(-3, 3))] * spatial)
    groups, per_group_in, per_group_out = data.draw(st.tuples(*[st.integers(1, 3)] * 3), "groups, channels")
    case = conv_case(
        operation,
        spatial,
        (data.draw(each(1, 4), "window"), data.draw(each(1, 4), "stride"), data.draw(each(1, 3), "dilation")),
        data.draw(st.one_of(st.sampled_from(["VALID", "SAME", "SAME_LOWER"]), st.integers(0, 2), pairs), "padding"),
        (groups * per_group_in, groups * per_group_out, groups),
        None,
        flip_kernel=data.draw(st.booleans(), "flip_kernel"),
    )
    arrays = case.arrays()
    dy = cotangents(jax.eval_shape(case.function(jaxbn), *arrays), 0)
    got, want = (jax.jit(partial(pullback, case.function(module)))(arrays, dy) for module in (jaxbn, jaxbn.reference))
    assert_close(got, want, 1e-12)
