"""The settings of the library's tests, and its quick compilation."""

from tests.conftest import programs

__all__ = ["programs"]
