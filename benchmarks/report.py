"""Writes the results as a table and as JSON."""

import json
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from statistics import geometric_mean
from typing import Any

import jax

from benchmarks import pytorch
from benchmarks.cases import DENSE, RANDOM
from benchmarks.measure import Result

PACKAGES = ("jax", "jaxlib", "flax", "equinox", "dm-haiku", "numpy")
PEERS = ("Flax", "Equinox", "PyTorch")
DENSE_MEAN_FLOOR = 1.0
WORST = 10
"""How many of the random convolutions are reported."""


def dense_mean(results: Sequence[Result]) -> float | None:
    """The geometric mean of all ratios of dense convolutions."""
    ratios = [result.ratio for result in results if result.case.startswith(f"{DENSE} ")]
    return geometric_mean(ratios) if ratios else None


def failures(results: Sequence[Result]) -> list[str]:
    """A sentence for each ratio that is below its floor."""
    found = [
        f"{result.case}, {result.quantity}: {result.ratio:.3g}, floor {result.floor:.3g}"
        for result in results
        if result.is_below
    ]
    found += [
        f"{result.case}, {result.quantity}, {name}: {result.peers[name]:.3g}, floor {result.peer_floors[name]:.3g}"
        for result in results
        for name in result.peers_below
    ]
    mean = dense_mean(results)
    if mean is not None and mean < DENSE_MEAN_FLOOR:
        found.append(f"{DENSE}, geometric mean: {mean:.3f}, floor {DENSE_MEAN_FLOOR}")
    return found


def worst_random(results: Sequence[Result]) -> list[Result]:
    return sorted((result for result in results if _is_random(result)), key=lambda result: result.ratio)[:WORST]


def table(results: Sequence[Result]) -> str:
    """A line for each ratio; for random convolutions only the worst.

    ``!`` marks a ratio below its floor, ``~`` one that was below it at first but not in the median of all measurements,
    and ``=`` a case in which both programs are identical.
    """
    width = max(len(result.case) for result in results)
    heads = "".join(f"{name:>9}" for name in PEERS)
    lines = [f"{'times over jaxbn':{width}}  {'':11} {'jaxbn ms':>9} {'lax':>8} {'floor':>7}  {heads}"]
    for result in [result for result in results if not _is_random(result)] + worst_random(results):
        floor = "" if result.floor is None else f"{result.floor:.3g}"
        mark = "!" if result.is_below else "~" if len(result.ratios) > 1 else "=" if result.same_program else " "
        peers = "".join(f"{result.peers[name]:9.2f}" if name in result.peers else " " * 9 for name in PEERS)
        lines.append(
            f"{result.case:{width}}  {result.quantity:11} {result.milliseconds:9.3f} {result.ratio:8.2f} "
            f"{floor:>7} {mark}{peers}"
        )
    mean = dense_mean(results)
    if mean is not None:
        lines.append(f"{DENSE}, geometric mean: {mean:.3f}, floor {DENSE_MEAN_FLOOR}")
    return "\n".join(lines)


def write_json(
    results: Sequence[Result], path: Path, *, command: str, requested: int, descriptions: dict[str, str]
) -> None:
    """Writes all results, except those of random convolutions that are not among the worst."""
    document = {
        "command": command,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "platform": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": versions(),
        "ratios_asked_for": requested,
        "ratios_measured": len(results),
        "below": failures(results),
        "dense_geometric_mean": dense_mean(results),
        "random_ratios_measured": sum(map(_is_random, results)),
        "random_worst": [_row(result) | {"what": descriptions[result.case]} for result in worst_random(results)],
        "results": [_row(result) for result in results if not _is_random(result)],
    }
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _row(result: Result) -> dict[str, Any]:
    return result._asdict() | {"ratio": result.ratio, "below": result.is_below}


def _is_random(result: Result) -> bool:
    return result.case.startswith(f"{RANDOM} ")


def versions() -> dict[str, str]:
    """The versions of Python, of the libraries that are installed, and of PyTorch in its process."""
    installed = {distribution.name: distribution.version for distribution in metadata.distributions()}
    libraries = {name: installed[name] for name in PACKAGES if name in installed}
    return {"python": platform.python_version()} | libraries | pytorch.versions()


def cpu_name() -> str:
    """The name from /proc/cpuinfo, since on Linux `platform` gives only the architecture."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
