"""Damaged checkpoints: is one ever loaded as if it were whole? Never is what it must be.

    python -m examples.trainer.tests.corruptions --output examples/trainer/results/corruptions.json

The newest of two checkpoints has a bit flipped, or its end cut off, in one of its files at random. Either what is
restored is then bit for bit what was saved, or the newest is named as damaged, and the one before is restored. The
damaged one must stay as it is.
"""

import argparse
import json
import re
import sys
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from examples.trainer.tests.states import a_state, bits
from examples.trainer.training import Checkpoints

SETTINGS = {"features": [4], "seed": 0}
NAMED, HARMLESS = "named as damaged, the one before restored", "harmless, restored bit for bit"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--flips", type=int, default=200, help="how many single bits to flip (default: %(default)s)")
    parser.add_argument("--truncations", type=int, default=60, help="how many files to cut (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the places (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="where to write the counts, as JSON")
    given = parser.parse_args(arguments)
    with TemporaryDirectory() as directory:
        found = corrupt(Path(directory), {"bit flips": given.flips, "truncations": given.truncations}, given.seed)
    if given.output:
        given.output.parent.mkdir(parents=True, exist_ok=True)
        given.output.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for kind, outcomes in found["outcomes"].items():
        print(f"{kind}: {', '.join(f'{count} {outcome}' for outcome, count in sorted(outcomes.items()))}")
    print(f"{len(found['wrong'])} wrong")
    return 1 if found["wrong"] else 0


def corrupt(directory: Path, counts: dict[str, int], seed: int) -> dict[str, Any]:
    """How many damages of each kind, and of each file, ended in which way."""
    with Checkpoints(directory, SETTINGS) as checkpoints:
        for save in range(2):
            checkpoints.save(a_state(save), history_of(save))
    rng = np.random.default_rng(seed)
    outcomes = {kind: Counter[str]() for kind in counts}
    files: dict[str, Counter[str]] = {}
    wrong = []
    kinds = [kind for kind, count in counts.items() for _ in range(count)]
    for kind in tqdm(kinds, bar_format="{desc} |{bar:20}| {n_fmt}/{total_fmt} {elapsed}", desc="damaged checkpoints"):
        file, damage, outcome = one(directory, kind, rng)
        name = re.sub(r"/d/\w+", "/d/…", str(file.relative_to(directory / "save_1")))
        outcomes[kind][outcome] += 1
        files.setdefault(name, Counter())[outcome] += 1
        if outcome not in (NAMED, HARMLESS):
            wrong.append(f"{name}, {damage}: {outcome}")
    versions = {"jax": jax.__version__, "orbax-checkpoint": version("orbax-checkpoint")}
    return versions | {"seed": seed, "outcomes": outcomes, "files": dict(sorted(files.items())), "wrong": wrong}


def one(directory: Path, kind: str, rng: np.random.Generator) -> tuple[Path, str, str]:
    """Damage a file, restore, and mend it again: which file, how, and what came of it."""
    files = sorted(path for path in (directory / "save_1").rglob("*") if path.is_file())
    file = files[rng.integers(len(files))]
    whole = file.read_bytes()
    if kind == "bit flips":
        place, bit = int(rng.integers(len(whole))), int(rng.integers(8))
        damage = f"bit {bit} of byte {place}"
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
    else:
        length = int(rng.integers(len(whole)))
        damage = f"cut to {length} of {len(whole)} bytes"
        file.write_bytes(whole[:length])
    before = {path: path.read_bytes() for path in files}
    outcome = restored(directory)
    if {path: path.read_bytes() for path in (directory / "save_1").rglob("*") if path.is_file()} != before:
        outcome = "the damaged one was touched"
    file.write_bytes(whole)
    return file, damage, outcome


def restored(directory: Path) -> str:
    """What comes of restoring."""
    try:
        with Checkpoints(directory, SETTINGS) as checkpoints:
            state, history = checkpoints.restore(a_state(2))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    found = bits(state), history
    named = len(checkpoints.damaged) == 1 and checkpoints.damaged[0].startswith(f"{directory / 'save_1'} is damaged (")
    if named and found == (bits(a_state(0)), history_of(0)):
        return NAMED
    if not checkpoints.damaged and found == (bits(a_state(1)), history_of(1)):
        return HARMLESS
    return f"something else was restored; {checkpoints.damaged}"


def history_of(save: int) -> list[dict[str, Any]]:
    return [{"epoch": epoch + 1, "loss": 1 / (epoch + 3), "accuracy": [0.5, 0.75]} for epoch in range(save + 1)]


if __name__ == "__main__":
    sys.exit(main())
