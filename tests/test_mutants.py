"""Every mutant of the rules is caught by `check_custom_vjp`, and the guess names the mistake where there is a name."""

import sys
from functools import partial
from types import ModuleType

import pytest

import jaxbn
from jaxbn.testing import VjpReport, check_custom_vjp
from tests.cases import Case, call
from tests.mutants import Mutant, MutantGoneError, mutated
from tests.mutants_of_convolution import CONVOLUTION
from tests.mutants_of_forwards import FORWARDS
from tests.mutants_of_fused import FUSED
from tests.mutants_of_normalisation import NORMALISATION

pytestmark = pytest.mark.usefixtures("quickly_compiled", "compiled_once")

MUTANTS = [*CONVOLUTION, *NORMALISATION, *FUSED]


def check(package: ModuleType, mutant: Mutant) -> VjpReport:
    case = mutant.case
    rule = partial(call, case, getattr(package, case.operation))
    reference = case.plain.function(jaxbn.reference)
    arrays = case.arrays(dtype=mutant.dtype)
    families = ("gaussian", "constant", "each output alone")
    return check_custom_vjp(
        rule, reference, *arrays, transforms=mutant.transforms, cotangents=families, raise_on_failure=False
    )


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_every_mutant_is_caught(mutant: Mutant) -> None:
    with mutated(mutant) as package:
        report = check(package, mutant)
    assert not report.passed
    # Nor by an exception that has nothing to do with it: what the guess explains is a wrong shape.
    assert all(failure.cause for failure in report.failures if failure.check in ("raises", "transformation"))
    if mutant.cause is not None:
        assert any(mutant.cause in cause for cause in report.causes), report.causes


@pytest.mark.parametrize("mutant", FORWARDS, ids=str)
def test_a_mutant_of_another_value_is_told_by_its_value(mutant: Mutant) -> None:
    with mutated(mutant) as package, pytest.raises(ValueError, match="`fn` and `reference` differ in value"):
        check(package, mutant)


@pytest.mark.parametrize("case", {str(mutant.case): mutant.case for mutant in [*MUTANTS, *FORWARDS]}.values(), ids=str)
def test_what_the_mutants_are_caught_on_passes_without_them(case: Case) -> None:
    mutant = Mutant("none", "_conv.conv", "", "", case)
    assert check(jaxbn, mutant).passed


def test_there_are_as_many_as_are_meant_to_be() -> None:
    assert len(CONVOLUTION) >= 40
    assert len(NORMALISATION) >= 40
    assert len({mutant.name for mutant in [*MUTANTS, *FORWARDS]}) == len(MUTANTS) + len(FORWARDS)
    assert sum(mutant.cause is not None for mutant in MUTANTS) >= len(MUTANTS) * 2 / 3


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
