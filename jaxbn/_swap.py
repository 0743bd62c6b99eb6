"""What the ``swap`` of a library's models reports."""

from typing import NamedTuple


class SwapReport(NamedTuple):
    """What ``swap`` did, by the paths of the layers in the model.

    Attributes:
        replaced: The paths of the layers that compute by jaxbn now.
        left: The paths of the convolutions and batch norms that were not replaced, each with the reason.
    """

    replaced: tuple[str, ...]
    left: dict[str, str]

    def __str__(self) -> str:
        count = len(self.replaced)
        layers = f"{count} layer computes" if count == 1 else f"{count} layers compute"
        lines = [f"{layers} by jaxbn: {', '.join(self.replaced)}" if count else "no layer was replaced"]
        return "\n".join(lines + [f"left as it was: {path}, {why}" for path, why in self.left.items()])
