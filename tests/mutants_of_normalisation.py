"""Mutants of batch norm's rules."""

from tests.mutants import Mutant

NORMALISATION: list[Mutant] = []
