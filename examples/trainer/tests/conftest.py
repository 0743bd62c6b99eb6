"""The settings of the library's tests, and fixtures for modules that compile much."""

from collections.abc import Iterator

import pytest

import tests.conftest  # noqa: F401 - it sets up JAX
from tests.support.compiled import compiled_in, compiled_without_effort


@pytest.fixture(scope="module")
def quickly_compiled() -> Iterator[None]:
    """For modules that compile much and compute little."""
    with compiled_without_effort():
        yield


@pytest.fixture(scope="module")
def compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """For modules that compile the same programs several times.

    The directory belongs to this process: JAX does not write its files atomically, so that another process could read
    half of one.
    """
    with compiled_in(tmp_path_factory.getbasetemp() / "compiled"):
        yield
