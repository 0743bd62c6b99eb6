"""The one error of data sets, and how sizes and names stand in its messages."""

from collections.abc import Sequence


class DataError(ValueError):
    """A data file that cannot be used; the message is one line for the person who chose the file.

    It begins with the file's name, then says what came and what is wanted.

    Example:
        >>> from examples.trainer import data
        >>> try:
        ...     data.load_npz("nowhere.npz")
        ... except data.DataError as error:
        ...     print(error)
        'nowhere.npz': No such file or directory
    """


def listed(names: Sequence[str]) -> str:
    """Names in quotes, with commas; a long list is cut."""
    return ", ".join(map(repr, names[:6])) + (", …" if len(names) > 6 else "")


def by(sides: Sequence[int]) -> str:
    return "×".join(map(str, sides))
