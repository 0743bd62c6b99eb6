"""Describes the machine and the software that times were measured with, for the examples that print times."""

import platform
from importlib.metadata import version
from pathlib import Path


def description(*packages: str) -> str:
    """Names the processor and the versions of these packages.

    Example:
        >>> description("jax").split(", ")[-1].startswith("jax 0.")
        True
    """
    information = Path("/proc/cpuinfo")  # on Linux; `platform` gives only the architecture there
    lines = information.read_text(encoding="utf-8").splitlines() if information.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return ", ".join([next(names, platform.processor()), *(f"{name} {version(name)}" for name in packages)])
