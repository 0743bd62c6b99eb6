"""Programs exported with sizes that are not known give the reference's numbers at every size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import jaxbn
from tests.support.sample import in_turn
from tests.support.symbolic_shapes import Case, assert_right_at, symbolic

CASES = {
    "of vectors": Case("batch_norm", ("b, 3", "3", "3")),
    "of images": Case("batch_norm", ("b, h, w, 3", "3", "3")),
    "masked": Case("batch_norm", ("b, h, 5, 3", "3", "3"), where="b, h, 1, 1"),
    "by given statistics": Case("batch_norm_inference", ("b, h, w, 3", "3", "3", "3", "3"), {"epsilon": 4.0}),
}


@pytest.mark.parametrize(("name", "sizes"), in_turn(list(CASES), range(3)))
def test_value_and_every_gradient_at_three_sizes(name: str, sizes: int) -> None:
    assert_right_at(CASES[name], sizes)


@pytest.mark.parametrize("shape", ["b, 3", "b, h, w, 3"])
def test_sums_of_as_many_values_as_there_may_be_keep_their_digits(shape: str) -> None:
    """Squares that are added to a float32 one by one lose three digits of seven."""
    x = np.random.default_rng(0).normal(size=(2**18, 3)).astype(np.float32)
    var = export.export(jax.jit(lambda x: jaxbn.batch_norm(x)[1].var))(*symbolic(shape, dtype=jnp.float32))
    sizes = (2**18, 3) if shape == "b, 3" else (8, 128, 256, 3)
    np.testing.assert_allclose(var.call(jnp.asarray(x.reshape(sizes))), x.var(0, dtype=np.float64), rtol=3e-6)
