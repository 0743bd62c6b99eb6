"""The tests run in float64, without JAX's silent promotions, on eight devices."""

from collections.abc import Iterator

import jax
import pytest

from tests.support.compiled import compiled_in, compiled_without_effort

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_num_cpu_devices", 8)


@pytest.fixture(scope="module")
def quickly_compiled() -> Iterator[None]:
    """For modules that compile much and compute little; what asks for the last digits is compiled as a user does."""
    with compiled_without_effort():
        yield


@pytest.fixture(scope="module")
def compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """For modules that compile the same programs again, as those that check many rules by one reference.

    The directory is this process's, for all its modules: JAX writes into a file's place, so that another process could
    read half of one.
    """
    with compiled_in(tmp_path_factory.getbasetemp() / "compiled"):
        yield
