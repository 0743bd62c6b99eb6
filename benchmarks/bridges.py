"""Other libraries' models before and after one line of jaxbn, JAX's four open issues among them; and borders.

    python -m benchmarks.bridges
    python -m benchmarks.bridges --only Equinox
    python -m benchmarks.bridges --draw    # the picture alone, from the results that are there

A ratio is the time before divided by the time after. ``patch_jax`` is called before a model is made; ``layers`` means
jaxbn's layers in the place of the library's: by ``swap``, or by another import in linen and Haiku. Both programs are
compiled and take turns. PyTorch's time divided by that after is given too, if there is PyTorch (see
`benchmarks.pytorch`). It needs Flax, Equinox and Haiku.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx
from jax import lax
from tqdm import tqdm

import jaxbn
import jaxbn.equinox
import jaxbn.haiku
import jaxbn.linen
import jaxbn.nnx
from benchmarks import pytorch, report
from benchmarks.measure import Program
from benchmarks.picture import draw_before_and_after
from benchmarks.timing import Effort, Timer, alone, medians

EFFORT = Effort(15, 2.0)
TURNS = 3
ISSUE_FLOOR = 5.0
IMAGES = (64, 32, 32, 3)
WIDTH, CLASSES = 32, 10
Make = Callable[[], Program]


class Row(NamedTuple):
    group: str
    case: str
    after_what: str
    before: Make
    after: Make
    floor: float | None = None


def patched(make: Make) -> Program:
    jaxbn.patch_jax()
    try:
        return make()
    finally:
        jaxbn.unpatch_jax()


def draw(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def with_gradients(function: Callable[..., jax.Array], *operands: jax.Array) -> Program:
    gradients = jax.grad(lambda *operands: jnp.sum(function(*operands) ** 2), tuple(range(len(operands))))
    return Program(gradients, operands)


def depthwise_layer() -> Program:
    """jax-ml/jax #23713: a depthwise ``nnx.Conv`` of 256 channels, forward."""
    layer = nnx.Conv(256, 256, 3, padding=1, feature_group_count=256, rngs=nnx.Rngs(0))
    definition, state = nnx.split(layer)
    return Program(lambda state, x: nnx.merge(definition, state)(x), (state, draw(1, 124, 124, 256)))


def grouped_gradient() -> Program:
    """jax-ml/jax #13800: the gradients of a depthwise convolution of lines, one layer and a batch of 2 of the issue."""

    def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
        numbers = ("NCW", "IOW", "NCW")
        return lax.conv_general_dilated(x, kernel, (1,), "SAME", dimension_numbers=numbers, feature_group_count=512)

    return with_gradients(convolve, draw(2, 512, 1024), draw(1, 512, 5))


def dilated_depthwise() -> Program:
    """jax-ml/jax #26266: a depthwise convolution of lines with a dilation of 16, forward."""

    def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
        options: dict[str, Any] = {"rhs_dilation": (16,), "feature_group_count": 32}
        return lax.conv_general_dilated(x, kernel, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"), **options)

    return Program(convolve, (draw(32, 1024, 32), draw(5, 1, 32)))


def in_a_loop() -> Program:
    """jax-ml/jax #12868: two convolutions in a loop, with 256 channels and not 1000."""

    def twice(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.fori_loop(0, 2, lambda _, x: lax.conv(x, kernel, (1,), "VALID"), x)

    return Program(twice, (draw(1, 256, 1024), draw(256, 256, 1)))


def step_of(loss: Callable[..., Any], *operands: Any) -> Program:
    """The loss of one step, the new state, and the gradients of the first operand."""
    return Program(jax.value_and_grad(loss, has_aux=True), operands)


def nnx_step(swap: bool = False) -> Program:
    rngs = nnx.Rngs(0)
    layers: list[Any] = []
    for into, out, groups in ((3, WIDTH, 1), (WIDTH, WIDTH, WIDTH), (WIDTH, 2 * WIDTH, 1)):
        conv = nnx.Conv(into, out, (3, 3), feature_group_count=groups, use_bias=False, rngs=rngs)
        layers += [conv, nnx.BatchNorm(out, rngs=rngs), nnx.relu]
    model = nnx.Sequential(*layers, partial(jnp.mean, axis=(1, 2)), nnx.Linear(2 * WIDTH, CLASSES, rngs=rngs))
    if swap:
        jaxbn.nnx.swap(model)
    definition, params, state = nnx.split(model, nnx.Param, ...)

    def loss(params: Any, state: Any, x: jax.Array) -> Any:
        model = nnx.merge(definition, params, state, copy=True)
        y = model(x)
        return jnp.mean(y**2), nnx.state(model, nnx.BatchStat)

    return step_of(loss, params, state, draw(*IMAGES))


def equinox_step(swap: bool = False) -> Program:
    def make(key: jax.Array) -> Any:
        layers: list[Any] = []
        for into, out, groups in ((3, WIDTH, 1), (WIDTH, WIDTH, WIDTH), (WIDTH, 2 * WIDTH, 1)):
            conv = eqx.nn.Conv2d(into, out, 3, padding=1, groups=groups, use_bias=False, key=key)
            layers += [conv, eqx.nn.BatchNorm(out, "batch", mode="batch"), eqx.nn.Lambda(jax.nn.relu)]
        mean = eqx.nn.Lambda(partial(jnp.mean, axis=(1, 2)))
        return eqx.nn.Sequential([*layers, mean, eqx.nn.Linear(2 * WIDTH, CLASSES, key=key)])

    model, state = eqx.nn.make_with_state(make)(jax.random.key(0))
    if swap:
        model, _ = jaxbn.equinox.swap(model)
    params, static = eqx.partition(model, eqx.is_inexact_array)

    def loss(params: Any, state: Any, x: jax.Array) -> Any:
        model = eqx.combine(params, static)
        y, state = jax.vmap(model, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(x, state)
        return jnp.mean(y**2), state

    return step_of(loss, params, state, jnp.moveaxis(draw(*IMAGES), -1, 1))


class LinenModel(linen.Module):
    library: Any

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for out, groups in ((WIDTH, 1), (WIDTH, WIDTH), (2 * WIDTH, 1)):
            x = self.library.Conv(out, (3, 3), feature_group_count=groups, use_bias=False)(x)
            x = linen.relu(self.library.BatchNorm(use_running_average=False)(x))
        return linen.Dense(CLASSES)(x.mean((1, 2)))


def linen_step(library: Any = linen) -> Program:
    model, x = LinenModel(library), draw(*IMAGES)
    variables = model.init(jax.random.key(0), x)

    def loss(params: Any, statistics: Any, x: jax.Array) -> Any:
        y, state = model.apply({"params": params, "batch_stats": statistics}, x, mutable=["batch_stats"])
        return jnp.mean(y**2), state

    return step_of(loss, variables["params"], variables["batch_stats"], x)


def haiku_step(library: Any = hk) -> Program:
    def forward(x: jax.Array) -> jax.Array:
        for out, groups in ((WIDTH, 1), (WIDTH, WIDTH), (2 * WIDTH, 1)):
            x = library.Conv2D(out, 3, feature_group_count=groups, with_bias=False)(x)
            x = jax.nn.relu(library.BatchNorm(True, True, 0.99)(x, is_training=True))
        return hk.Linear(CLASSES)(x.mean((1, 2)))

    model, x = hk.transform_with_state(forward), draw(*IMAGES)
    params, state = model.init(jax.random.key(0), x)

    def loss(params: Any, state: Any, x: jax.Array) -> Any:
        y, state = model.apply(params, state, None, x)
        return jnp.mean(y**2), state

    return step_of(loss, params, state, x)


def bordered(mode: str, pads: bool) -> Program:
    """The gradients of a convolution with a border; ``pads`` writes the border with `jax.numpy.pad` first."""

    def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
        if not pads:
            return jaxbn.conv(x, kernel, padding=1, padding_mode=mode)
        names = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}
        return jaxbn.conv(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), names[mode]), kernel)

    return with_gradients(convolve, draw(32, 32, 32, 64), draw(3, 3, 64, 64))


def rows() -> Iterator[Row]:
    for name, make in (
        ("#23713", depthwise_layer),
        ("#13800", grouped_gradient),
        ("#26266", dilated_depthwise),
        ("#12868", in_a_loop),
    ):
        yield Row("JAX's open issues", name, "patch_jax", make, partial(patched, make), ISSUE_FLOOR)
    steps: dict[str, tuple[Callable[..., Program], Any]] = {
        "nnx": (nnx_step, True),
        "Equinox": (equinox_step, True),
        "linen": (linen_step, jaxbn.linen),
        "Haiku": (haiku_step, jaxbn.haiku),
    }
    for name, (step, ours) in steps.items():
        yield Row("training step", name, "patch_jax", step, partial(patched, step), 1.0)
        yield Row("training step", name, "layers", step, partial(step, ours), 1.0)
    for mode in ("reflect", "replicate", "circular"):
        make = partial(bordered, mode)
        yield Row("border beside jnp.pad", mode, "padding_mode", partial(make, True), partial(make, False))


def in_torch(row: Row) -> Timer | None:
    """The row in PyTorch. The training step is the same for every library."""
    torch = pytorch.process()
    if torch is None:
        return None
    if row.group == "training step":
        return torch.timer("bridges_step", WIDTH, CLASSES, IMAGES)
    if row.group == "JAX's open issues":
        return torch.timer(row.before.__name__)
    return None


def measure(row: Row) -> dict[str, Any]:
    """The medians of three turns. PyTorch, in its own process, has turns of its own."""
    runs = [row.before(), row.after()]
    turns = [medians(runs, EFFORT) for _ in range(TURNS)]
    before, after = (1e3 * median(times) for times in zip(*turns, strict=True))
    ratio = median(one / other for one, other in turns)
    facts = {"group": row.group, "case": row.case, "after": row.after_what, "floor": row.floor}
    facts |= {"milliseconds_before": before, "milliseconds_after": after, "ratio": ratio}
    torch = in_torch(row)
    if torch is None:
        return facts
    return facts | {"torch": median(torch(EFFORT) / alone(runs[1])(EFFORT) for _ in range(TURNS))}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bridges")
    parser.add_argument("--only", default="", metavar="SUBSTRING", help="only the rows whose group or case contains it")
    parser.add_argument("--draw", action="store_true", help="only draw the picture of the results that are there")
    options = parser.parse_args()
    only, path = options.only, Path("benchmarks/results/bridges.json")
    if options.draw:
        draw_before_and_after(json.loads(path.read_text(encoding="utf-8")), path.with_suffix(".png"))
        return 0
    chosen = [row for row in rows() if only in f"{row.group}, {row.case}"]
    results = [measure(row) for row in tqdm(chosen, unit="row", dynamic_ncols=True)]
    for each in results:
        times = f"{each['milliseconds_before']:9.2f} ms → {each['milliseconds_after']:8.2f} ms {each['ratio']:7.2f}"
        mark = "  below" if each["ratio"] < (each["floor"] or 0) else ""
        torch_ratio = f"{each['torch']:8.2f}" if "torch" in each else ""
        print(f"{each['group']:22} {each['case']:10} {each['after']:12} {times}{mark} {torch_ratio}".rstrip())
    if not only:
        document = {
            "command": "python -m benchmarks.bridges",
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "cpu": report.cpu_name(),
            "cores": os.cpu_count(),
            "native": jaxbn.native_kernels().why,
            "versions": report.versions(),
            "results": results,
        }
        path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        draw_before_and_after(document, path.with_suffix(".png"))
    return 1 if any(each["ratio"] < (each["floor"] or 0) for each in results) else 0


if __name__ == "__main__":
    sys.exit(main())
