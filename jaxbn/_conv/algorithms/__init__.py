"""The table of algorithms, best first."""

from types import ModuleType

from jaxbn._conv.algorithms import dense
from jaxbn._conv.geometry import ConvGeometry

TABLE: dict[str, ModuleType] = {"dense": dense}


def choose(map_name: str, geometry: ConvGeometry, platform: str | None, forced: str | None = None) -> ModuleType:
    return dense
