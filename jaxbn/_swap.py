"""What the ``swap`` of a library's models reports."""

from typing import NamedTuple


class SwapReport(NamedTuple):
    """What ``swap`` did, by the paths of the layers in the model.

    Attributes:
        replaced: The paths of the layers that compute by jaxbn now.
        left: The paths of others that have to do with it, and why they stayed as they were.
    """

    replaced: tuple[str, ...]
    left: dict[str, str]

    def __str__(self) -> str:
        lines = [f"{len(self.replaced)} layers compute by jaxbn: {', '.join(self.replaced)}"]
        return "\n".join(lines + [f"left as it was: {path}, {why}" for path, why in self.left.items()])
