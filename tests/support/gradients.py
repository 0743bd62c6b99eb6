"""Value and gradients against autodiff of the unmodified forward, in float64."""

import jax

import jaxbn
from tests.support.cases import Case
from tests.support.compare import assert_close, cotangents, jitted_pullback, true_pullback


def assert_gradients_are_autodiffs(case: Case) -> None:
    """For three cotangents, as exactly as ``case.tolerance`` says."""
    ours, reference = jitted_pullback(case.function(jaxbn)), true_pullback(case.function(jaxbn.reference))
    arrays = case.arrays()
    shapes = jax.eval_shape(case.function(jaxbn), *arrays)
    for seed in range(3):
        dy = cotangents(shapes, seed)
        (y, gradients), (y_wanted, wanted) = ours(arrays, dy), reference(arrays, dy)
        assert_close(y, y_wanted, 1e-12)
        for name, got, want in zip(case.names, gradients, wanted, strict=True):
            assert_close(got, want, case.tolerance if name == "x" else 1e-12, [name])
