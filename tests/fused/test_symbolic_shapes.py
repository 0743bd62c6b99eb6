"""Programs exported with sizes that are not known give the reference's numbers at every size."""

import pytest

from tests.support.sample import in_turn
from tests.support.symbolic_shapes import Case, assert_right_at

CASES = {
    "a batch of known images": Case("batch_norm_relu", ("b, 8, 9, 3", "3", "3")),
    "channels first, rows masked": Case("batch_norm_relu", ("3, 2, h, w", "2", "2"), {"axis": 1}, where="1, 1, h, 1"),
    "with its convolution": Case(
        "batch_norm_relu_conv", ("b, h, w, 3", "3", "3", "3, 2, 3, 4", "4"), {"stride": 2, "padding": "SAME"}
    ),
}


@pytest.mark.parametrize(("name", "sizes"), in_turn(list(CASES), range(3)))
def test_value_and_every_gradient_at_three_sizes(name: str, sizes: int) -> None:
    assert_right_at(CASES[name], sizes)
