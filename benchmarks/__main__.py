"""Measures every case, shows the ratios, and fails if one is below its floor.

    python -m benchmarks
    python -m benchmarks --quick
    python -m benchmarks --only "groups 4"
    python -m benchmarks --draw benchmarks/results/cpu.json

Needs the extra: python -m pip install -e ".[benchmarks]". PyTorch is measured too, as `benchmarks.pytorch` says.
"""

import argparse
import json
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
from tqdm import tqdm

from benchmarks import cases, convolutions, networks, norms, picture, report
from benchmarks.measure import Comparison, DifferentResults, Result, measure
from benchmarks.timing import Effort

THOROUGH, QUICK, SMALL = Effort(20, 1.0), Effort(5, 0.3), Effort(20, 0.2)
NEVER_SLOWER = 0.9
"""On other platforms no floor is higher: there the time of one program varies this much between compilations."""
RANDOM_GEOMETRIES, QUICK_RANDOM_GEOMETRIES = 200, 5


def main(arguments: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(arguments)
    if options.draw:
        draw(options.draw)
        return 0
    table, dense = ([row for row in rows if row.quick or not options.quick] for rows in (cases.TABLE, cases.dense()))
    random = cases.random_geometries(QUICK_RANDOM_GEOMETRIES if options.quick else RANDOM_GEOMETRIES)
    adjusted = map(on_this_platform, comparisons(table, dense, random, quick=options.quick))
    chosen = [comparison for comparison in adjusted if options.only in comparison.case]
    if not chosen:
        print(f"benchmarks: no case's name contains {options.only!r}", file=sys.stderr)
        return 2
    options.output.mkdir(parents=True, exist_ok=True)

    results = list(measured(chosen, quick=options.quick))
    if not results:
        return 1
    print(report.table(results))
    name = results_name(options)
    descriptions = {row.name: str(row) for row in random}
    path = options.output / f"{name}.json"
    report.write_json(results, path, command=command(options), requested=len(chosen), descriptions=descriptions)
    draw(path)
    print(f"written: {options.output / name}.json and .png")
    below = report.failures(results)
    for failure in below:
        print(f"below its floor: {failure}")
    return 1 if below or len(results) < len(chosen) else 0


def draw(path: Path) -> None:
    picture.draw(json.loads(path.read_text(encoding="utf-8")), path.with_suffix(".png"))


def results_name(options: argparse.Namespace) -> str:
    """The device, and the options that select some of the cases, so that the file with all cases is not overwritten."""
    words = [jax.devices()[0].device_kind, *["quick"] * options.quick, *re.findall(r"\w+", options.only)]
    return "-".join(words).replace(" ", "-")


def command(options: argparse.Namespace) -> str:
    """The command that repeats the measurement, without the folder for its results."""
    words = ["python", "-m", "benchmarks", *["--quick"] * options.quick]
    return shlex.join(words + (["--only", options.only] if options.only else []))


def measured(chosen: Sequence[Comparison], *, quick: bool) -> Iterator[Result]:
    """Yields results until all are measured, the user interrupts, or two programs compute different results."""
    for comparison in (bar := tqdm(chosen, unit="ratio", dynamic_ncols=True)):
        bar.set_description(f"{comparison.case}, {comparison.quantity}")
        is_small = comparison.case.startswith(cases.RANDOM)
        try:
            yield measure(comparison, QUICK if quick else SMALL if is_small else THOROUGH)
        except (KeyboardInterrupt, DifferentResults) as stop:
            tqdm.write(f"benchmarks: {stop or 'interrupted'}; these are the results so far")
            return


def comparisons(
    table: Sequence[cases.Convolution],
    dense: Sequence[cases.Convolution],
    random: Sequence[cases.Convolution],
    *,
    quick: bool,
) -> Iterator[Comparison]:
    """All comparisons, with the many dense and random ones last, so that an interrupted run has some of every kind."""
    for row in table:
        yield from convolutions.comparisons(row)
    yield from norms.comparisons(quick=quick)
    yield from networks.comparisons(quick=quick)
    for row in [*dense, *random]:
        yield from convolutions.comparisons(row)


def on_this_platform(comparison: Comparison) -> Comparison:
    """The comparison with the floors of this platform; those of the cases are for the CPU."""
    if jax.default_backend() == "cpu":
        return comparison
    floor = None if comparison.floor is None else min(comparison.floor, NEVER_SLOWER)
    return comparison._replace(floor=floor, peer_floors={})


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Compare the speed of jaxbn's operations and gradients with other libraries.",
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="a few cases of every kind, in under two minutes")
    about = "folder for the JSON and the picture, created if needed (default: %(default)s)"
    add("--output", type=Path, default=Path("benchmarks/results"), metavar="DIR", help=about)
    add("--draw", type=Path, metavar="JSON", help="only draw the picture of a result again, beside it")
    add("--only", default="", metavar="SUBSTRING", help="only the cases whose name contains it")
    return parser


if __name__ == "__main__":
    sys.exit(main())
