"""Value and gradients against autodiff of the unmodified forward, in float64."""

from collections.abc import Sequence

import jax

import jaxbn
from tests.support.cases import Case
from tests.support.compare import assert_close, cotangents, pullback

TOGETHER = 12


def together(cases: Sequence[Case]) -> list[Sequence[Case]]:
    """A dozen cases are one program, which compiles faster than a dozen programs."""
    return [cases[start : start + TOGETHER] for start in range(0, len(cases), TOGETHER)]


def assert_gradients_are_autodiffs(cases: Sequence[Case]) -> None:
    """For three cotangents, as exactly as the case's tolerance says."""
    arrays = [case.arrays() for case in cases]
    outputs = [jax.eval_shape(case.function(jaxbn), *each) for case, each in zip(cases, arrays, strict=True)]

    @jax.jit
    def both(arrays: list[list[jax.Array]], dy: list[list[jax.Array]]) -> list[list[object]]:
        return [
            [pullback(case.function(module), *given) for module in (jaxbn, jaxbn.reference)]
            for case, *given in zip(cases, arrays, dy, strict=True)
        ]

    for seed in range(3):
        dy = [cotangents(each, seed) for each in outputs]
        for case, ((y, gradients), (y_wanted, wanted)) in zip(cases, both(arrays, dy), strict=True):
            assert_close(y, y_wanted, 1e-12, [f"{case}, output {index}" for index in range(len(y))])
            for name, got, want in zip(case.names, gradients, wanted, strict=True):
                assert_close(got, want, case.tolerance if name == "x" else 1e-12, [f"{case}, {name}"])
