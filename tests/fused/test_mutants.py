"""Every mutant is caught by `check_custom_vjp`, and the guess names the mistake where there is a name."""

import pytest

from tests.fused.forward_mutants import FORWARDS
from tests.fused.mutants import FUSED
from tests.fused.tangent_mutants import TANGENTS
from tests.support.cases import Case
from tests.support.mutants import (
    Mutant,
    assert_caught,
    assert_passes_without_mutants,
    assert_told_by_its_value,
    cases_of,
    sampled,
)

ALL = [*FUSED, *TANGENTS]
DERIVATIVES, VALUES = sampled(ALL), sampled(FORWARDS)


@pytest.mark.parametrize("mutant", DERIVATIVES)
def test_every_mutant_is_caught(mutant: Mutant) -> None:
    assert_caught(mutant)


@pytest.mark.parametrize("mutant", VALUES)
def test_a_mutant_of_the_forward_is_told_by_its_value(mutant: Mutant) -> None:
    assert_told_by_its_value(mutant)


@pytest.mark.parametrize("case", cases_of(DERIVATIVES, VALUES))
def test_what_the_mutants_are_caught_on_passes_without_them(case: Case) -> None:
    assert_passes_without_mutants(case)


def test_there_are_as_many_as_are_meant_to_be() -> None:
    assert len(FUSED) >= 10
    assert len({mutant.name for mutant in [*ALL, *FORWARDS]}) == len(ALL) + len(FORWARDS)
