"""Mutants of the checker itself: one that skips a comparison, or swaps a tolerance, is told from the right one."""

import pytest

from jaxbn.testing import check_custom_vjp
from tests.checker.mutants import MUTANTS, CheckerMutant
from tests.checker.probes import EXPECTED, PROBES, outcome
from tests.support.cases import Case
from tests.support.mutants import Mutant, mutated
from tests.support.sample import covering


@pytest.mark.parametrize("probe", PROBES)
def test_the_checker_as_it_is(probe: str) -> None:
    assert outcome(check_custom_vjp, probe) == EXPECTED[probe]


@pytest.mark.parametrize("mutant", covering(MUTANTS, lambda mutant: [mutant.module]))
def test_every_mutant_of_the_checker_is_told(mutant: CheckerMutant) -> None:
    name, module, old, new, probe = mutant
    unused = Case("conv", {})
    with mutated(Mutant(name, f"testing.{module}", old, new, unused)) as package:
        assert outcome(package.testing.check_custom_vjp, probe) != EXPECTED[probe]
