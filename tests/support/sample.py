"""Large tables are tried in part: a sample runs by default, and every case under ``python -m pytest --all-cases``.

A test is parametrised with the whole table. What is not in the sample has the mark ``all_cases``, by which
`tests/conftest.py` leaves it out.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import product
from typing import Any

import pytest

from tests.support.cases import Case

Params = list[Any]
"""Of `pytest.param`, for `pytest.mark.parametrize`."""


def param(*values: Any, in_sample: bool) -> Any:
    """Named after its values."""
    return pytest.param(*values, marks=[] if in_sample else [pytest.mark.all_cases], id="-".join(map(_name, values)))


def _name(value: Any) -> str:
    return ",".join(map(_name, value)) if type(value) is tuple else getattr(value, "__name__", str(value))


def covering(cases: Iterable[Any], facts: Callable[[Any], Iterable[Any]], times: int = 1) -> Params:
    """In the sample is each case with a fact that fewer than ``times`` cases of the sample before it have."""
    params, seen = [], Counter[Any]()
    for case in cases:
        found = set(facts(case))
        in_sample = any(seen[fact] < times for fact in found)
        seen.update(found if in_sample else ())
        params.append(param(case, in_sample=in_sample))
    return params


def in_turn(cases: Sequence[Any], others: Sequence[Any]) -> Params:
    """Every pair. In the sample each case has one of the others, which take turns, and each of the others a case."""
    long, short = len(cases), len(others)
    sample = {(number % long, number % short) for number in range(max(long, short))}
    pairs = product(range(long), range(short))
    return [param(cases[one], others[other], in_sample=(one, other) in sample) for one, other in pairs]


def rotated(cases: Sequence[Any], others: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Every pair, in an order in which the others take turns: for a sample of so many cases that not all are in it."""
    turns = product(range(len(others)), enumerate(cases))
    return [(case, others[(number + turn) % len(others)]) for turn, (number, case) in turns]


def sample_of(params: Params) -> list[Any]:
    """What runs by default: the values alone."""
    chosen = [each.values for each in params if not each.marks]
    return [values[0] if len(values) == 1 else values for values in chosen]


def facts_of(case: Case) -> list[Any]:
    """The operation with each of its options' values, and with what is given in how many dimensions."""
    x, *others = case.shapes.values()
    given = (len(x or ()), *(shape is not None for shape in others))
    return [(case.operation, given), *((case.operation, *map(str, option)) for option in case.options.items())]
