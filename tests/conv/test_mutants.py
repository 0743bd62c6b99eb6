"""Every mutant is caught by `check_custom_vjp`, and the guess names the mistake where there is a name."""

import sys

import pytest

import jaxbn
from tests.conv.forward_mutants import FORWARDS
from tests.conv.map_mutants import MAPS
from tests.conv.mutants import RULES
from tests.conv.tangent_mutants import TANGENTS
from tests.support.cases import Case
from tests.support.mutants import (
    Mutant,
    MutantGoneError,
    assert_caught,
    assert_passes_without_mutants,
    assert_told_by_its_value,
    cases_of,
    mutated,
    sampled,
)

CONVOLUTION = [*RULES, *MAPS, *TANGENTS]


DERIVATIVES, VALUES = sampled(CONVOLUTION), sampled(FORWARDS)


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
    assert len(CONVOLUTION) >= 40
    assert len({mutant.name for mutant in [*CONVOLUTION, *FORWARDS]}) == len(CONVOLUTION) + len(FORWARDS)


def test_a_mutant_whose_place_is_gone_is_an_error() -> None:
    gone, twice = (CONVOLUTION[0]._replace(old=old) for old in ("no such text", "dkernel"))
    for mutant, count in ((gone, "0 times"), (twice, "times in jaxbn._conv.conv, once is wanted")):
        with pytest.raises(MutantGoneError, match=count), mutated(mutant):
            pass


def test_a_mutant_leaves_the_package_as_it_was() -> None:
    before = {name: module for name, module in sys.modules.items() if name.startswith("jaxbn")}
    with mutated(CONVOLUTION[0]) as package:
        assert package is not jaxbn
        assert package.conv is not jaxbn.conv
        assert sys.modules["jaxbn"] is package
    assert {name: module for name, module in sys.modules.items() if name.startswith("jaxbn")} == before
