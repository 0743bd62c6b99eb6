"""Mutated data files: whatever is in them, each is a data set that is whole, or gets the documented error.

    python -m examples.trainer.tests.mutated_files --count 2000 --output examples/trainer/results/mutated_files.json

A case is a small data set in one of the formats, with one of its files changed. It is loaded, and every image of it is
read, in a process of its own in which warnings are errors and whose address space may grow by 64 MiB meanwhile. Where
that process dies, or takes ten seconds over a case, it is noted, and another one goes on. What Python and NumPy have
allocated at the most is noted too: were it more than 8 MiB and thrice the
file's length, the case would have failed.
It runs on Linux.
"""

import argparse
import json
import platform
import resource
import signal
import subprocess
import sys
import tracemalloc
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import PIL
from tqdm import tqdm

from examples.trainer import data
from examples.trainer.tests.data_files import COLOUR, FORMATS, Format, image_files, put
from examples.trainer.tests.mutations import mutated

KINDS = FORMATS | {
    f"folder, {kind}": Format(partial(image_files, kind), data.load_folder, COLOUR) for kind in ("JPEG", "BMP")
}
ADDRESS_SPACE = 64 << 20
ALLOCATED = 8 << 20
SECONDS = 10


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=100, help="how many cases (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of all of them (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="where to write what came of them, as JSON")
    parser.add_argument("--from", type=int, dest="first", help=argparse.SUPPRESS)  # the process that may die
    given = parser.parse_args(arguments)
    if given.first is not None:
        work(given.seed, given.first, given.count)
        return 0

    found = summary(given)
    if given.output:
        given.output.parent.mkdir(parents=True, exist_ok=True)
        given.output.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    print(f"{given.count} mutated files: {found['refused']} refused, {found['read']} read, {len(found['wrong'])} wrong")
    for case, what in found["wrong"].items():
        print(f"case {case}: {what}")
    return 1 if found["wrong"] else 0


def summary(given: argparse.Namespace) -> dict[str, Any]:
    cases = list(tqdm(results(given.seed, given.count), total=given.count, unit="file", disable=None))
    good = [case for case in cases if case["outcome"] in ("refused", "read")]
    by_format = {kind: Counter(case["outcome"] for case in good if case["format"] == kind) for kind in KINDS}
    mutations = sorted({case["mutation"] for case in good})
    outcomes = Counter(case["outcome"] for case in good)
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "seed": given.seed,
        "count": given.count,
        "refused": outcomes["refused"],
        "read": outcomes["read"],
        "wrong": {str(case["case"]): case["outcome"] for case in cases if case not in good},
        "most bytes allocated for files of at most 1 MiB": max(
            (case["allocated"] for case in good if case["longest"] <= 1 << 20), default=0
        ),
        "most files' lengths allocated for longer ones": max(
            (case["allocated"] / case["longest"] for case in good if case["longest"] > 1 << 20), default=0
        ),
        "formats": by_format,
        "mutations": {
            name: Counter(case["outcome"] for case in good if case["mutation"] == name) for name in mutations
        },
    }


def results(seed: int, count: int) -> Iterator[dict[str, Any]]:
    """What came of each case, from one process as long as it lives."""
    done = 0
    while done < count:
        command = [sys.executable, "-m", "examples.trainer.tests.mutated_files"]
        options = ["--seed", seed, "--from", done, "--count", count]
        with subprocess.Popen(
            [*command, *map(str, options)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            for line in process.stdout:
                yield json.loads(line)
                done += 1
            said = process.stderr.read()
        if process.returncode or said:
            yield {"case": done, "outcome": f"the process ended with {process.returncode}: {said}"}
            done += 1


def work(seed: int, first: int, count: int) -> None:
    """Prints what comes of each case as a line of JSON, at once."""
    for kind in KINDS:  # what Pillow and others import and keep does not count
        assert outcome_of(KINDS[kind].files(), KINDS[kind].name) == "read"
    warnings.simplefilter("error")
    for case in range(first, count):
        rng = np.random.default_rng([seed, case])
        kind = sorted(KINDS)[case % len(KINDS)]
        mutation, files = mutated(rng, KINDS[kind].files())
        longest = max(map(len, files.values()), default=0)
        with bounded() as allocated:
            outcome = outcome_of(files, KINDS[kind].name)
        if allocated() > ALLOCATED + 3 * longest:
            outcome = f"{allocated()} bytes were allocated, {outcome}"
        result = {"case": case, "format": kind, "mutation": mutation, "outcome": outcome}
        print(json.dumps(result | {"longest": longest, "allocated": allocated()}), flush=True)


@contextmanager
def bounded() -> Iterator[Callable[[], int]]:
    """Bounds time and address space; gives what tells how many bytes were allocated at once."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ADDRESS_SPACE, hard))
    signal.alarm(SECONDS)
    tracemalloc.start()
    most = 0
    yield lambda: most
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    signal.alarm(0)
    resource.setrlimit(resource.RLIMIT_AS, (before, hard))


def outcome_of(files: dict[str, bytes], name: str) -> str:
    """`read`, `refused`, or what went wrong."""
    with TemporaryDirectory() as folder:
        put(Path(folder), files)
        try:
            dataset = data.load(Path(folder, name))
            complaints = complaints_of(dataset.x_train, dataset.y_train, dataset.classes)
            complaints += complaints_of(dataset.x_test, dataset.y_test, dataset.classes)
        except data.DataError as error:
            said = str(error)
            right = said.startswith(f"'{folder}") and len(said.splitlines()) == 1 and "memory that is left" not in said
            return "refused" if right else f"refused by {said!r}"
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return ", ".join(complaints) or "read"


def complaints_of(stored: data.Images, labels: np.ndarray, classes: int) -> list[str]:
    """What is not as a `Dataset` has it."""
    images = stored[:]
    right = {
        f"images of {images.dtype}": images.dtype == np.float32,
        f"images of shape {images.shape}": images.shape == tuple(stored.shape) and images.ndim == 4 and images.size,
        "pixels that are not finite": np.isfinite(images).all(),
        f"{len(labels)} labels of {len(images)} images": labels.shape == (len(stored),),
        f"labels of {labels.dtype}": labels.dtype == np.int32,
        f"labels that are none of {classes} classes": ((labels >= 0) & (labels < classes)).all(),
    }
    return [complaint for complaint, is_right in right.items() if not is_right]


if __name__ == "__main__":
    sys.exit(main())
