"""The tests run in float64, without JAX's silent promotions, on eight devices, and compile quickly."""

import gc
from collections.abc import Iterator
from contextlib import ExitStack

import jax
import pytest
from hypothesis import settings

from tests.support import compare
from tests.support.compiled import compiled_in, compiled_without_effort

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_num_cpu_devices", 8)

gc.set_threshold(200_000, 50, 100)  # Tracing makes many objects, and the collector would look through JAX's each time.


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all-cases", action="store_true", help="run every case of the large tables, not only a sample")


def pytest_configure(config: pytest.Config) -> None:
    """How many examples Hypothesis draws."""
    settings.register_profile("drawn", max_examples=15 if config.getoption("--all-cases") else 6, deadline=None)
    settings.load_profile("drawn")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is not in the sample of its table, unless all cases are asked for."""
    left_out = [item for item in items if item.get_closest_marker("all_cases")]
    if left_out and not config.getoption("--all-cases"):
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("all_cases")]


@pytest.fixture
def without_native_kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compute in operations of JAX alone, as an installation without a C++ compiler does."""
    monkeypatch.setattr("jaxbn._native.IS_SWITCHED_OFF", True)
    jax.clear_caches()
    yield
    jax.clear_caches()


@pytest.fixture(scope="module", autouse=True)
def programs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Compile quickly unless the module is marked `optimised`, look up what was compiled before, and drop it all after.

    The directory belongs to this process: JAX does not write its files atomically, so that another process could read
    half of one.
    """
    with ExitStack() as stack:
        if not request.node.get_closest_marker("optimised"):
            stack.enter_context(compiled_without_effort())
        stack.enter_context(compiled_in(tmp_path_factory.getbasetemp() / "compiled"))
        yield
    for cached in (compare.jitted, compare.jitted_pullback, compare.true_pullback):
        cached.cache_clear()
    jax.clear_caches()
    gc.collect()
