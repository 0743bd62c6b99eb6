"""Every mutant of the rules is caught by `check_custom_vjp`, and the guess names most mistakes that it has a name for."""

import sys
from functools import cache, partial
from types import ModuleType

import pytest

import jaxbn
from jaxbn.testing import VjpReport, check_custom_vjp
from tests.cases import call
from tests.mutants import CONVOLUTION, MUTANTS, PLAIN, Mutant, MutantGoneError, mutated, mutated_source

pytestmark = pytest.mark.usefixtures("quickly_compiled")


def check(package: ModuleType, mutant: Mutant) -> VjpReport:
    case = mutant.case
    rule = partial(call, case, getattr(package, case.operation))
    reference = case.function(jaxbn.reference)
    arrays = case.arrays(dtype=mutant.dtype)
    options = {"transforms": mutant.transforms, "cotangents": ("gaussian", "constant")}
    return check_custom_vjp(rule, reference, *arrays, **options, raise_on_failure=False)


@cache
def report_of(mutant_name: str) -> VjpReport:
    (mutant,) = (mutant for mutant in MUTANTS if mutant.name == mutant_name)
    with mutated(mutant) as package:
        return check(package, mutant)


@pytest.mark.parametrize("name", [mutant.name for mutant in MUTANTS])
def test_every_mutant_is_caught_and_its_cause_guessed(name: str) -> None:
    report = report_of(name)
    print(name, report.causes)
    assert not report.passed
