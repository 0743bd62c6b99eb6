"""Measures the error of batch norm against the offset of its input in several libraries, and draws it.

    python -m docs.figures.numerics --measure  # measures and draws; needs Flax and PyTorch
    python -m docs.figures.numerics            # draws the committed result

The input is normally distributed with deviation 1 about the offset, in float32. The error is the largest difference
of ``y`` from the float64 result for the same float32 input.
"""

import argparse
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import jaxbn
from benchmarks import report
from benchmarks.pytorch import process
from docs.figures.boards import BLUE, GREEN, INK, MUTED, ORANGE, PURPLE, new_figure
from docs.figures.files import MEASURED, save
from jaxbn import reference

SHAPE, EPSILON = (64, 16, 16, 8), 1e-5
OFFSETS = [float(10**power) for power in range(8)]
COLOURS = {"E[x²] − E[x]²": MUTED, "Flax": ORANGE, "two passes": PURPLE, "PyTorch": BLUE, "jaxbn": GREEN}
RESULT = MEASURED / "numerics.json"


def fast_variance(x: jax.Array) -> jax.Array:
    mean = jnp.mean(x, (0, 1, 2))
    return (x - mean) / jnp.sqrt(jnp.mean(x**2, (0, 1, 2)) - mean**2 + EPSILON)


def flax(x: jax.Array) -> Any:
    from flax import nnx

    return nnx.BatchNorm(SHAPE[-1], epsilon=EPSILON, use_running_average=False, rngs=nnx.Rngs(0))(x)


def pytorch(x: jax.Array) -> Any:
    torch = process()
    return torch.call("normalised", x.tolist(), EPSILON) if torch else np.full(SHAPE, np.nan)


NORMS: dict[str, Callable[[jax.Array], Any]] = {
    "E[x²] − E[x]²": jax.jit(fast_variance),
    "Flax": flax,
    "two passes": jax.jit(lambda x: reference.batch_norm(x, epsilon=EPSILON)[0]),
    "PyTorch": pytorch,
    "jaxbn": jax.jit(lambda x: jaxbn.batch_norm(x, epsilon=EPSILON)[0]),
}


def measure() -> dict[str, Any]:
    errors: dict[str, list[float | None]] = {name: [] for name in NORMS}
    for offset in OFFSETS:
        x = np.asarray(offset + np.random.default_rng(0).normal(size=SHAPE), np.float32)
        exact = x.astype(np.float64)
        exact = (exact - exact.mean((0, 1, 2))) / np.sqrt(exact.var((0, 1, 2)) + EPSILON)
        for name, norm in NORMS.items():
            error = float(np.abs(np.asarray(norm(jnp.asarray(x)), np.float64) - exact).max())
            errors[name].append(error if np.isfinite(error) else None)
    return {
        "command": "python -m docs.figures.numerics --measure",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": report.cpu_name(),
        "versions": report.versions(),
        "shape": SHAPE,
        "offsets": OFFSETS,
        "errors": errors,
    }


def draw(result: dict[str, Any]) -> Figure:
    figure = new_figure(7, 4)
    axes = figure.subplots()
    for name, errors in result["errors"].items():
        finite = [np.nan if error is None else error for error in errors]
        style, size = ("--", 7) if name in ("E[x²] − E[x]²", "two passes") else ("-", 4)
        axes.plot(result["offsets"], finite, style, color=COLOURS[name], marker="o", markersize=size, label=name)
    axes.set(xscale="log", yscale="log", xlabel="mean of the input, deviation 1", ylabel="largest error of y")
    axes.axhline(1, color=MUTED, linewidth=0.8, linestyle=":")
    axes.annotate("no digit is right", (result["offsets"][-1], 1.4), ha="right", fontsize=9, color=MUTED)
    axes.grid(alpha=0.3)
    axes.tick_params(colors=INK)
    axes.legend(fontsize=9)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--measure", action="store_true", help="measure again, instead of drawing the committed result")
    if parser.parse_args().measure:
        RESULT.write_text(json.dumps(measure(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    save(draw(json.loads(RESULT.read_text(encoding="utf-8"))), "numerics")


if __name__ == "__main__":
    main()
