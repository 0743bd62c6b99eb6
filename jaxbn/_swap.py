"""The report of ``swap``, and the reasons why it leaves a layer as it is."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class SwapReport(NamedTuple):
    """The layers that ``swap`` has replaced and left, by their paths in the model.

    Attributes:
        replaced: The paths of the layers that compute by jaxbn now.
        left: The paths of the convolutions and batch norms that were not replaced, with the reasons.
    """

    replaced: tuple[str, ...]
    left: dict[str, str]

    def __str__(self) -> str:
        count = len(self.replaced)
        layers = f"{count} layer computes" if count == 1 else f"{count} layers compute"
        lines = [f"{layers} by jaxbn: {', '.join(self.replaced)}" if count else "no layer was replaced"]
        return "\n".join(lines + [f"left as it was: {path}, {why}" for path, why in self.left.items()])


def reason_to_leave(layer: Any, swaps: Mapping[type, type]) -> str | None:
    """Why a layer of jaxbn, or of a subclass of the library's types, is not replaced; None for other layers."""
    if isinstance(layer, tuple(swaps.values())):
        return "which computes by jaxbn already"
    if type(layer) not in swaps and isinstance(layer, tuple(swaps)):
        return f"a {type(layer).__name__}; derive it from jaxbn's layer, and it computes by jaxbn"
    return None
