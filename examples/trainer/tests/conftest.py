"""The settings and fixtures of the library's tests: float64, no silent promotions, eight devices."""

from tests.conftest import compiled_once as compiled_once, quickly_compiled as quickly_compiled
