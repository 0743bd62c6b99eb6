"""Scikit-learn's handwritten digits as a `Dataset`."""

from examples import digits

from .dataset import Dataset


def load_digits() -> Dataset:
    """The digits that the other examples use too; `examples.digits.load_digits` describes them.

    Raises:
        ImportError: scikit-learn is not installed.

    Example:
        >>> load_digits().x_test.shape
        (360, 8, 8, 1)
    """
    return Dataset(*digits.load_digits(), classes=10)
