"""Right rules under many seeds: how often does `check_custom_vjp` fail one? Never is what it must be.

    python -m tests.campaigns.false_alarms --seeds 2000 --output tests/campaigns/false_alarms.json

Each seed draws its own arrays, cotangents and directions. Layers, functions at kinks or near singularities, and dtypes
take turns; every nineteenth check is under all transformations, the others are of the gradient alone. It can be
stopped: it goes on from the seeds it has written.
"""

import argparse
import json
import sys
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax
import jax.numpy as jnp

import jaxbn
from jaxbn.testing import VjpReport, check_custom_vjp
from tests.support.cases import Case, conv_case, fused_conv_case, norm_case
from tests.support.compiled import compiled_in
from tests.support.kinks import KINKS
from tests.support.layers import LAYERS

DTYPES = (jnp.float32, jnp.bfloat16, jnp.float16)
CASES = (
    conv_case("conv", 2, ((3, 2), (1, 2), (2, 1)), "SAME", (4, 6, 2), None),
    conv_case("conv_transpose", 1, ((3,), 2, 1), 1, (3, 5, 1), None),
    norm_case("batch_norm", (3, 4, 5), 1, (1, 1)),
    norm_case("batch_norm", (4, 3, 2), -1, (1, 1), where="random"),
    norm_case("batch_norm_relu", (4, 3, 2), -1, (1, 1)),
    norm_case("batch_norm_inference", (3, 4, 5), -1, (1, 1)),
    fused_conv_case((3, 5, 2), ((2,), 1, 1), 3, (1, 1, 1), padding="SAME"),
)
FUNCTIONS = {**LAYERS, **KINKS}
SUBJECTS: tuple[Any, ...] = (*FUNCTIONS, *CASES)
EVERY = 19  # and not 20, which would meet the same layers again


def check(seed: int) -> tuple[str, VjpReport]:
    """The check that a seed stands for."""
    subject, dtype = SUBJECTS[seed % len(SUBJECTS)], DTYPES[seed // len(SUBJECTS) % len(DTYPES)]
    options = {"seed": seed, "raise_on_failure": False} | ({} if seed % EVERY == 0 else {"transforms": ()})
    checked = partial(check_custom_vjp, **options)
    name = f"{getattr(subject, 'operation', subject)}, {dtype.__name__}"
    if isinstance(subject, Case):
        functions = (subject.function(module) for module in (jaxbn, jaxbn.reference))
        return name, checked(*functions, *subject.arrays(seed, dtype))
    layer = FUNCTIONS[subject]
    return name, checked(layer.rule, layer.forward, *layer.arrays(seed, dtype))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=100, help="how many, from 0")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so many, to go on later")
    parser.add_argument("--output", type=Path, help="where to write, and to go on from")
    given = parser.parse_args(arguments)
    # Compiling takes most of the time.
    jax.config.update("jax_disable_most_optimizations", True)
    with TemporaryDirectory() as directory, compiled_in(Path(directory)):
        found = count(given)
    print(f"\n{found['seeds']} seeds, {len(found['alarms'])} false alarms")
    return 1 if found["alarms"] else 0


def count(given: argparse.Namespace) -> dict[str, Any]:
    """Goes on from what is found already."""
    found: dict[str, Any] = {"jax": jax.__version__, "seeds": 0, "passed": {}, "alarms": {}}
    if given.output and given.output.exists():
        found = json.loads(given.output.read_text())
    started = time.monotonic()
    for seed in range(found["seeds"], given.seeds):
        if time.monotonic() - started > given.seconds:
            break
        try:
            name, report = check(seed)
        except ValueError as refusal:  # of a right rule
            found["alarms"][str(seed)] = str(refusal)
        else:
            if report.passed:
                found["passed"][name] = found["passed"].get(name, 0) + 1
            else:
                found["alarms"][str(seed)] = f"{name}\n{report}"
        found["seeds"] = seed + 1
        print(
            f"\r{seed + 1} of {given.seeds} seeds, {len(found['alarms'])} alarms", end="", file=sys.stderr, flush=True
        )
        if given.output:
            given.output.parent.mkdir(parents=True, exist_ok=True)
            given.output.write_text(json.dumps(found, indent=2) + "\n")
        if seed % 50 == 49:
            jax.clear_caches()
    return found


if __name__ == "__main__":
    sys.exit(main())
