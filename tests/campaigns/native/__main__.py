"""The native kernels in a C++ program of their own: literal sums, sanitizers, mutants.

    python -m tests.campaigns.native            # all of it, about 15 minutes on two cores
    python -m tests.campaigns.native --only address

``harness.cc`` draws convolutions of 1 to 3 dimensions and compares the three maps in both dtypes with literal sums, on
three threads and on one. It is compiled for every instruction set of this machine and run on 2,000 of them on each; on
700 others with AddressSanitizer and UndefinedBehaviorSanitizer; on 200 with ThreadSanitizer; and with each mutant of
`mutants`, which it must find. The results are written beside this file.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from tests.campaigns.native.mutants import MUTANTS, NativeMutant

HERE = Path(__file__).parent
SOURCES = HERE.parents[2] / "jaxbn" / "_native" / "src"
FLAGS = ["-std=gnu++17", "-ffp-contract=fast", "-w", "-pthread"]


class InstructionSet(NamedTuple):
    """How ``CMakeLists.txt`` compiles the kernels for it."""

    name: str
    vector_bytes: int
    registers: int
    flags: tuple[str, ...] = ()


AVX512 = ("-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mfma")
INSTRUCTION_SETS = (
    [
        InstructionSet("baseline", 16, 16),
        InstructionSet("avx2", 32, 16, ("-mavx2", "-mfma")),
        InstructionSet("avx512", 64, 32, AVX512),
    ]
    if platform.machine() in ("x86_64", "AMD64")
    else [InstructionSet("neon", 16, 32)]
)
HALVES = [InstructionSet("avx512_half", 32, 32, AVX512)] if len(INSTRUCTION_SETS) > 1 else []
"""Vectors of half the size, for narrow groups; the kernels choose them by themselves."""


def build(folder: Path, flags: Sequence[str], mutant: NativeMutant | None = None) -> Path:
    """Compile the harness from the sources, one of them with a mistake if there is a mutant."""
    for source in SOURCES.iterdir():
        if source.suffix in (".h", ".cc") and source.name != "ffi.cc":
            text = source.read_text()
            if mutant is not None and mutant.file == source.name:
                assert text.count(mutant.old) == 1, f"{mutant.name}: its text is {text.count(mutant.old)} times there"
                text = text.replace(mutant.old, mutant.new)
            (folder / source.name).write_text(text)
    objects = []
    for each in (*INSTRUCTION_SETS, *HALVES):
        objects.append(f"{each.name}.o")
        defines = f"-DJAXBN_SET={each.name} -DJAXBN_VECTOR_BYTES={each.vector_bytes} -DJAXBN_REGISTERS={each.registers}"
        _run(["c++", *FLAGS, *flags, *each.flags, *defines.split(), "-c", "kernels.cc", "-o", objects[-1]], folder)
    _run(
        ["c++", *FLAGS, *flags, "-I.", str(HERE / "harness.cc"), "maps.cc", "plan.cc", *objects, "-o", "harness"],
        folder,
    )
    return folder / "harness"


def _run(command: Sequence[str], folder: Path) -> None:
    subprocess.run(command, cwd=folder, check=True)


def run(harness: Path, count: int, instruction_set: str, seed: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {"JAXBN_INSTRUCTION_SET": instruction_set}
    command = [str(harness), str(count), str(seed), "3"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200)


def checked(name: str, flags: Sequence[str], count: int) -> Iterator[dict[str, object]]:
    """The harness with these flags on every instruction set; a failure ends the program."""
    with tempfile.TemporaryDirectory() as folder:
        harness = build(Path(folder), flags)
        for number, each in enumerate(INSTRUCTION_SETS):
            done = run(harness, count, each.name, seed=number * count)
            tqdm.write(f"{name}: {done.stdout.strip()}")
            if done.returncode != 0:
                raise SystemExit(f"{name}, {each.name}: {done.stdout}{done.stderr}")
            yield {"run": name, "printed": done.stdout.strip()}


def caught(mutant: NativeMutant) -> dict[str, object]:
    """What the harness says of a mutant, or that it crashed, which counts as found."""
    with tempfile.TemporaryDirectory() as folder:
        done = run(build(Path(folder), ["-O1"], mutant), 600, INSTRUCTION_SETS[-1].name)
    printed = done.stdout.strip() or f"ended by signal {-done.returncode}"
    return {"mutant": mutant.name, "caught": done.returncode != 0, "printed": printed}


RUNS = {
    "literal sums": (["-O2"], 2000),
    "address and undefined": (["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"], 700),
    "threads": (["-O1", "-g", "-fsanitize=thread"], 200),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns.native")
    parser.add_argument("--only", default="", metavar="SUBSTRING", help="the runs whose name contains it")
    only = parser.parse_args().only
    results: dict[str, object] = {"date": str(date.today()), "machine": platform.machine()}
    chosen = {name: run for name, run in RUNS.items() if only in name}
    results["runs"] = [result for name, (flags, count) in chosen.items() for result in checked(name, flags, count)]
    mutants = [mutant for mutant in MUTANTS if only in f"mutants {mutant.name}"]
    results["mutants"] = found = [caught(mutant) for mutant in tqdm(mutants, unit="mutant", disable=not mutants)]
    missed = [result["mutant"] for result in found if not result["caught"]]
    print(f"{len(found) - len(missed)} of {len(found)} mutants caught")
    if not only:
        (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    for name in missed:
        print(f"not caught: {name}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
