"""The table of batch norms: every option, shapes whose sides all differ."""

from collections.abc import Iterator
from itertools import product

from tests.support.cases import MASKS, Case, norm_case


def norm_cases(operation: str) -> Iterator[Case]:
    shapes = [
        ((2, 5), -1),
        ((3, 5), 1),
        ((7, 4), 0),
        ((1, 6), -1),
        ((5, 1), -1),
        ((2, 6, 3), -1),
        ((3, 4, 5), 1),
        ((2, 3, 5, 4), -1),
        ((2, 3, 5, 4), 1),
        ((3, 5, 2, 4), -4),
        ((2, 2, 3, 4, 5), -1),
        ((2, 4, 3, 2, 5), 1),
        ((1, 4, 4, 1), 3),
    ]
    given = [(1, 1), (1, 0), (0, 1), (0, 0)]
    for (shape, axis), scale_and_shift in product(shapes, given):
        yield norm_case(operation, shape, axis, scale_and_shift)
    for epsilon in (1e-12, 1e-3, 1.0):
        yield norm_case(operation, (4, 3, 5), -1, (1, 1), epsilon=epsilon)


def masked_cases(operation: str) -> Iterator[Case]:
    for kind, (shape, axis) in product(MASKS, [((5, 4, 3), -1), ((4, 3, 5, 2), 1), ((3, 4), 0)]):
        yield norm_case(operation, shape, axis, (1, 1), where=kind)


NORM_CASES = [*norm_cases("batch_norm"), *masked_cases("batch_norm"), *norm_cases("batch_norm_inference")]
# A few that together have every option, for what is too costly to try on all.
COVERING_CASES = [
    norm_case("batch_norm", (3, 5), -1, (1, 1)),
    norm_case("batch_norm", (3, 4, 5, 2), 1, (1, 1)),
    norm_case("batch_norm", (3, 2, 4), -1, (0, 0)),
    norm_case("batch_norm", (3, 5, 4, 2), -1, (1, 1), where="random"),
    norm_case("batch_norm_inference", (3, 2, 4), -1, (1, 1)),
    norm_case("batch_norm_inference", (3, 4, 5, 2), 1, (0, 1)),
]
