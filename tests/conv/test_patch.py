"""`patch_jax`: what JAX's own functions compute then, with which gradients, and that nothing stays of it."""

import sys
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

import jaxbn
from jaxbn._conv.patch import stand_in
from tests.support.compare import assert_close

LAX = lax.conv_general_dilated


def draw(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(sum(shape)).normal(size=shape))


BOTH = IMAGES, KERNEL = draw(2, 3, 8, 7), draw(4, 3, 3, 2)
CALLS: dict[str, tuple[Callable[..., jax.Array], tuple[jax.Array, ...]]] = {
    "lax.conv_general_dilated": (lambda x, kernel: lax.conv_general_dilated(x, kernel, (2, 1), "SAME"), BOTH),
    "lax.conv": (lambda x, kernel: lax.conv(x, kernel, (1, 1), "VALID"), BOTH),
    "lax.conv_transpose": (
        lambda x, kernel: lax.conv_transpose(x, kernel, (2,), "SAME"),
        (draw(2, 5, 3), draw(3, 3, 4)),
    ),
    "jnp.convolve": (jnp.convolve, (draw(9), draw(4))),
    "jax.scipy.signal.convolve2d": (jax.scipy.signal.convolve2d, (draw(6, 7), draw(3, 2))),
}


@pytest.fixture
def patched() -> Iterator[None]:
    jaxbn.patch_jax()
    yield
    jaxbn.unpatch_jax()


def gradients(function: Callable[..., jax.Array], arrays: tuple[jax.Array, ...]) -> Any:
    return jax.value_and_grad(lambda *arrays: jnp.sum(jnp.sin(function(*arrays))), (0, 1))(*arrays)


def primitives(function: Callable[..., Any], arrays: tuple[jax.Array, ...]) -> str:
    return str(jax.make_jaxpr(function)(*arrays))


@pytest.mark.parametrize("name", CALLS)
def test_jaxs_functions_run_on_the_maps(name: str) -> None:
    function, arrays = CALLS[name]
    want, before = gradients(function, arrays), primitives(function, arrays)
    jaxbn.patch_jax()
    try:
        got, during = gradients(function, arrays), primitives(function, arrays)
    finally:
        jaxbn.unpatch_jax()
    assert_close(got, want, 1e-12)
    assert ("conv_general_dilated[" in before, "convolve[" in before) == (True, False)
    assert ("conv_general_dilated[" in during, "convolve[" in during) == (False, True)
    assert primitives(function, arrays) == before


def test_a_compiled_function_is_compiled_again() -> None:
    traces = []

    @jax.jit
    def function(x: jax.Array) -> jax.Array:
        traces.append(lax.conv_general_dilated)
        return lax.conv(x, KERNEL, (1, 1), "SAME")

    for change in (lambda: None, jaxbn.patch_jax, jaxbn.patch_jax, jaxbn.unpatch_jax, jaxbn.unpatch_jax):
        change()
        function(IMAGES)
    assert traces == [LAX, stand_in, LAX]
    assert lax.conv_general_dilated is LAX


@pytest.mark.usefixtures("patched")
def test_the_algorithms_and_the_reference_keep_jaxs_own() -> None:
    x, kernel = draw(2, 6, 5, 4), draw(3, 2, 4, 3)
    for algorithm in ("dense", None):
        got = gradients(partial(jaxbn.conv, algorithm=algorithm), (x, kernel))
        assert_close(got, gradients(jaxbn.reference.conv, (x, kernel)), 1e-12)
    assert "conv_general_dilated[" in primitives(jaxbn.reference.conv, (x, kernel))
    batched = jax.vmap(lambda x: lax.conv(x, KERNEL, (1, 1), "SAME"))(IMAGES[None])
    assert_close(batched[0], LAX(IMAGES, KERNEL, (1, 1), "SAME"), 1e-12)


@pytest.mark.usefixtures("patched")
def test_what_lax_alone_can_do_is_left_to_it() -> None:
    whole = jnp.arange(24).reshape(1, 2, 12)
    assert lax.conv(whole, whole[:, :, :2], (1,), "VALID").dtype == whole.dtype
    four = jnp.ones((1, 1, 3, 3, 3, 3))
    assert lax.conv(four, four[..., :2], (1, 1, 1, 1), "VALID").shape == (1, 1, 1, 1, 1, 2)


def test_who_imported_a_function_by_name_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that has JAX's has the other one meanwhile; one that has jaxbn's keeps it; entries may be no modules."""
    of_jax, of_jaxbn = ModuleType("of_jax"), ModuleType("of_jaxbn")
    vars(of_jax)["conv_general_dilated"] = LAX
    vars(of_jaxbn)["conv_general_dilated"] = jaxbn.conv_general_dilated
    for name, module in {"of_jax": of_jax, "of_jaxbn": of_jaxbn, "nothing": None}.items():
        monkeypatch.setitem(sys.modules, name, module)
    jaxbn.patch_jax()
    during = vars(of_jax)["conv_general_dilated"]
    jaxbn.unpatch_jax()
    assert (during, vars(of_jax)["conv_general_dilated"]) == (stand_in, LAX)
    assert vars(of_jaxbn)["conv_general_dilated"] is jaxbn.conv_general_dilated


def test_flaxs_layers_that_are_made_meanwhile() -> None:
    """Flax keeps the function as the default of an argument."""
    make = partial(nnx.Conv, 3, 4, (3,), param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    before = make()
    jaxbn.patch_jax()
    during = make()
    jaxbn.unpatch_jax()
    functions = [layer.conv_general_dilated for layer in (before, during, make())]
    assert functions == [LAX, stand_in, LAX]
    assert "convolve[" in primitives(during, (draw(2, 5, 3),))
