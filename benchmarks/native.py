"""The native CPU kernels beside jaxbn without them, and beside PyTorch where it is installed.

    python -m benchmarks.native
    python -m benchmarks.native --only dense

A ratio is another time divided by that of jaxbn with its kernels. Floors are of geometric means over the rows of a
group, and of the worst row. PyTorch has its channels-last layout and as many threads; the members of a family are eight
calls of it. Two rows are also given as shares of what a loop of multiply-adds reaches in the same minute.
"""

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
from tqdm import tqdm

import jaxbn
from benchmarks import networks, peers, pytorch, report
from benchmarks.cases import Convolution, Floors
from benchmarks.convolutions import draw, our_forward, program
from benchmarks.multiply_adds import multiply_adds
from benchmarks.network_peers import CNN, torch_timer
from benchmarks.resnet_peers import RESNET
from benchmarks.timing import Effort, Run, Timer, alone, medians

EFFORT = Effort(20, 0.4)
TURNS = 3


class Group(NamedTuple):
    """Rows with one floor for each other side: of the geometric mean, and of the worst row."""

    name: str
    cases: tuple[Convolution, ...]
    torch: dict[str, tuple[float, float]]
    without: dict[str, float]


class Row(NamedTuple):
    """What is timed: the same work with the native kernels, without them, and in PyTorch."""

    group: str
    case: str
    quantity: str
    ours: Callable[[], Run]
    without: Callable[[], Run]
    torch: Callable[[], Timer] | None


def _conv(name: str, x: tuple[int, ...], window: tuple[int, ...], out: int, stride: int = 1, groups: int = 1) -> Any:
    return Convolution(name, x, (*window, x[-1] // groups, out), Floors(None, 0, 0), stride, groups=groups)


DENSE = (
    _conv("1×1, 64→64", (32, 32, 32, 64), (1, 1), 64),
    _conv("1×1, 256→128", (16, 28, 28, 256), (1, 1), 128),
    _conv("3×3, 3→16", (64, 32, 32, 3), (3, 3), 16),
    _conv("3×3, 16→32", (64, 32, 32, 16), (3, 3), 32),
    _conv("3×3, 64→64", (32, 32, 32, 64), (3, 3), 64),
    _conv("3×3, 64→128, stride 2", (32, 32, 32, 64), (3, 3), 128, 2),
    _conv("3×3, 128→128", (32, 16, 16, 128), (3, 3), 128),
    _conv("3×3, 256→256", (32, 8, 8, 256), (3, 3), 256),
    _conv("5×5, 32→32", (16, 28, 28, 32), (5, 5), 32),
    _conv("7×7 stride 2, 3→64", (8, 112, 112, 3), (7, 7), 64, 2),
)
GROUPED = tuple(
    _conv(f"groups {groups}", (32, 32, 32, 64), (3, 3), 64, groups=groups) for groups in (2, 4, 8, 16, 32)
) + tuple(_conv(f"depthwise {side}×{side}", (32, 32, 32, 64), (side, side), 64, groups=64) for side in (3, 5, 7))
OTHER_DIMENSIONS = (
    _conv("line of 1024, 32→64", (16, 1024, 32), (5,), 64),
    _conv("line of 1024, 64→64", (16, 1024, 64), (3,), 64),
    _conv("16×16×16, 16→32", (4, 16, 16, 16, 16), (3, 3, 3), 32),
    _conv("8×8×8, 64→64", (4, 8, 8, 8, 64), (3, 3, 3), 64),
)
FAMILY = (replace(_conv("3×3, 16→32, eight members", (32, 16, 16, 16), (3, 3), 32), within="vmap"),)
SMALL = (_conv("8×8, 8→8", (4, 8, 8, 8), (3, 3), 8),)

MAPS = ("forward", "dx", "dkernel")
GROUPS = (
    Group(
        "dense",
        DENSE,
        {"forward": (1.1, 0.8), "dx": (1.1, 0.8), "dkernel": (1.4, 0.9)},
        {"forward": 1.7, "dx": 1.7, "dkernel": 2.5},
    ),
    Group("groups and depthwise", GROUPED, dict.fromkeys(MAPS, (1.0, 0.7)), dict.fromkeys(MAPS, 1.3)),
    Group("1-D and 3-D", OTHER_DIMENSIONS, dict.fromkeys(MAPS, (1.0, 0.0)), dict.fromkeys(MAPS, 1.5)),
    Group("family under vmap", FAMILY, dict.fromkeys(MAPS, (1.1, 0.0)), dict.fromkeys(MAPS, 1.3)),
    Group("small", SMALL, dict.fromkeys(MAPS, (1.0, 0.0)), dict.fromkeys(MAPS, 1.0)),
    Group("training step", (), {"time": (1.1, 0.0)}, {"time": 1.7}),
    Group("in scan", (), {"time": (1.1, 0.0)}, {"time": 1.3}),
    Group("bfloat16", (), dict.fromkeys(MAPS, (0.0, 0.0)), dict.fromkeys(MAPS, 1.0)),
    Group("compilation", (), {"time": (0.0, 0.0)}, {"time": 1.0}),
)
LIMITED = DENSE[4]
"""The row whose operations per second are compared with the processor's limit."""


def switched_off() -> Any:
    """Within it, programs are compiled as if jaxbn had been installed without a compiler."""
    return mock.patch("jaxbn._native.IS_SWITCHED_OFF", True)


def without_native(make: Callable[[], Run]) -> Callable[[], Run]:
    def made() -> Run:
        with switched_off():
            return made_afresh(make)

    return made


def made_afresh(make: Callable[[], Run]) -> Run:
    jax.clear_caches()
    return make()


def rows() -> Iterator[Row]:
    torch = pytorch.process()
    for group in GROUPS:
        for case in group.cases:
            x, kernel = draw(case)
            for quantity in group.torch:
                make = partial(program, our_forward(case), quantity, x, kernel, case.within)
                timer = partial(peers.torch_timer, torch, case, quantity) if torch else None
                yield Row(group.name, case.name, quantity, partial(made_afresh, make), without_native(make), timer)
    x, kernel = (array.astype(jnp.bfloat16) for array in draw(LIMITED))
    for quantity in MAPS:
        make = partial(program, our_forward(LIMITED), quantity, x, kernel)
        yield Row("bfloat16", LIMITED.name, quantity, partial(made_afresh, make), without_native(make), None)
    large, scanned = networks.LARGE, (networks.STEPS, *networks.SMALL)
    for group, name, step, shape, models in (
        ("training step", "CNN", networks.cnn_step, large, CNN),
        ("training step", "ResNet-18", networks.resnet_step, large, RESNET),
        ("in scan", "8 steps of the CNN", networks.cnn_step, scanned, CNN),
    ):
        make = partial(step, shape)
        timer = partial(torch_timer, torch, models, shape) if torch else None
        yield Row(group, name, "time", partial(made_afresh, make), without_native(make), timer)
    for name, step in (("CNN", networks.cnn_step(large)), ("ResNet-18", networks.resnet_step(large))):
        compile_ = networks.compilation(step.function, step.operands)
        yield Row("compilation", name, "time", lambda run=compile_: run, lambda run=compile_: switched_off()(run), None)


def limits() -> dict[str, float]:
    """The operations per second of a loop of multiply-adds, and those of two maps of one row as shares of it."""
    loop, (x, kernel) = multiply_adds(), draw(LIMITED)
    operations = 2 * math.prod(LIMITED.x) * math.prod(LIMITED.kernel) / LIMITED.x[-1]
    quantities = ("forward", "dkernel")
    runs = [made_afresh(partial(program, our_forward(LIMITED), quantity, x, kernel)) for quantity in quantities]
    peaks, shares = [], []
    for _ in range(TURNS):
        peaks.append(median(loop() for _ in range(5)))
        shares.append([operations / time / peaks[-1] for time in medians(runs, EFFORT)])
    return {"multiply_adds": median(peaks)} | dict(zip(quantities, map(median, zip(*shares, strict=True)), strict=True))


def measure(row: Row) -> dict[str, Any]:
    """The ratios of the medians in three turns. PyTorch, in its own process, has turns of its own."""
    ours, without = row.ours(), row.without()
    torch = row.torch() if row.torch else None
    times, ratios, torch_ratios = [], [], []
    for _ in range(TURNS):
        mine, other = medians([ours, without], EFFORT)
        times.append(mine)
        ratios.append(other / mine)
        if torch is not None:
            torch_ratios.append(torch(EFFORT) / alone(ours)(EFFORT))
    result = {"group": row.group, "case": row.case, "quantity": row.quantity, "milliseconds": 1e3 * median(times)}
    return result | {"without": median(ratios), "torch": median(torch_ratios) if torch_ratios else None}


def summary(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each group and quantity the geometric mean and the worst row, with the floors."""
    lines = []
    for group in GROUPS:
        for quantity, (mean_floor, row_floor) in group.torch.items():
            chosen = [each for each in results if (each["group"], each["quantity"]) == (group.name, quantity)]
            for side, floors in (("without", (group.without[quantity], 0.0)), ("torch", (mean_floor, row_floor))):
                ratios = [each[side] for each in chosen if each[side] is not None]
                if ratios:
                    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
                    line = {"group": group.name, "quantity": quantity, "side": side, "mean": mean, "worst": min(ratios)}
                    lines.append(line | {"floors": floors, "below": mean < floors[0] or min(ratios) < floors[1]})
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.native")
    parser.add_argument("--only", default="", metavar="SUBSTRING", help="only the rows whose group or case contains it")
    only = parser.parse_args().only
    kernels = jaxbn.native_kernels()
    if not kernels.available:
        print(f"benchmarks.native: the native kernels are not used: {kernels.why}", file=sys.stderr)
        return 2
    chosen = [row for row in rows() if only in f"{row.group}, {row.case}"]
    results = [measure(row) for row in tqdm(chosen, unit="row", dynamic_ncols=True)]
    for each in results:
        torch = "" if each["torch"] is None else f"{each['torch']:8.2f}"
        print(f"{each['case']:24} {each['quantity']:8} {each['milliseconds']:9.3f} ms {each['without']:8.2f} {torch}")
    lines = summary(results)
    print(f"\n{'geometric mean of times over jaxbn':42} {'mean':>6} {'worst':>6}   floors")
    for line in lines:
        mark = "  below" if line["below"] else ""
        name = f"{line['group']}, {line['quantity']}: {line['side']}"
        print(f"{name:42} {line['mean']:6.2f} {line['worst']:6.2f}   {line['floors']}{mark}")
    limit = limits() if only in f"limit, {LIMITED.name}" else {}
    for name, share in list(limit.items())[1:]:
        print(f"{LIMITED.name}, {name}: {share:.0%} of the {limit['multiply_adds'] / 1e9:.0f} GF/s of multiply-adds")
    if not only:
        document = {
            "command": "python -m benchmarks.native",
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "cpu": report.cpu_name(),
            "cores": os.cpu_count(),
            "native": kernels.why,
            "versions": report.versions(),
            "summary": lines,
            "limit": limit,
            "results": results,
        }
        path = Path("benchmarks/results/native.json")
        path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 1 if any(line["below"] for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main())
