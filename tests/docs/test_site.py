"""The site's sources: the reference has every public name, every page is in a table of contents, every link leads on.

The site itself is built by ``python -m sphinx -W --keep-going -b html docs build/docs``, which these tests do not need.
"""

import importlib
import inspect
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import pytest

import jaxbn
from examples import check_your_own_layer

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
SHARED = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "examples/trainer/README.md"]
SUBMODULES = sorted(set(dir(jaxbn)) - set(jaxbn.__all__) - {"__version__"})
MAPS = ("forward", "dx", "dkernel")
FENCE = re.compile(r"^(```+)(.*?)\n(.*?)^\1$", re.MULTILINE | re.DOTALL)


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def prose(path: Path) -> str:
    return FENCE.sub("", read(path))


def public_names(module_name: str) -> set[str]:
    module = importlib.import_module(module_name)
    if hasattr(module, "__all__"):
        return set(module.__all__)
    return {
        name
        for name, value in vars(module).items()
        if (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__ == module_name
        and not name.startswith("_")
    }


def documented_names() -> dict[str, set[str]]:
    """The names that autodoc is asked for, by module."""
    names: dict[str, set[str]] = {}
    for page in DOCS.glob("reference/*.md"):
        module = ""
        for directive, argument in re.findall(r"^\.\. (\w+):: (\S+)$", read(page), re.MULTILINE):
            if directive in ("automodule", "currentmodule"):
                module = argument
            else:
                assert directive in ("autofunction", "autoclass", "autoexception"), directive
                assert argument not in names.setdefault(module, set()), f"{module}.{argument} is documented twice"
                names[module].add(argument)
    return names


@pytest.mark.parametrize("module", ["jaxbn", *(f"jaxbn.{name}" for name in SUBMODULES)])
def test_the_reference_has_every_public_name(module: str) -> None:
    assert documented_names()[module] == public_names(module)


def test_every_submodule_has_a_page() -> None:
    assert len(SUBMODULES) == 10
    assert documented_names().keys() == {"jaxbn", *(f"jaxbn.{name}" for name in SUBMODULES)}


def entries(page: Path) -> Iterator[Path]:
    for _, info, body in FENCE.findall(read(page)):
        if info == "{toctree}":
            lines = (line for line in body.splitlines() if line and not line.startswith(":"))
            yield from (page.parent / f"{line}.md" for line in lines)


def test_every_page_is_in_one_table_of_contents() -> None:
    listed = [entry for page in PAGES for entry in entries(page)]
    assert sorted([*listed, DOCS / "index.md"]) == PAGES


def slugs(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MyST make them."""
    headings = re.findall(r"^#+ (.*)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, *SHARED], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^()\s]+)\)", prose(page)):
        if re.match(r"https?://", target):
            continue
        place, _, anchor = target.partition("#")
        path = (page.parent / place).resolve() if place else page
        assert path.is_file(), target
        assert path.is_relative_to(ROOT), target
        assert not anchor or anchor in slugs(path), target


def test_included_files_exist() -> None:
    included = [page.parent / path for page in PAGES for path in re.findall(r"^```\{include\} (.*)$", read(page), re.M)]
    assert {path.resolve() for path in included} == set(SHARED[1:])


def test_the_report_on_the_page_is_the_checkers() -> None:
    (shown,) = re.findall(r"^```text\n(check_custom_vjp of .*?)^```", read(DOCS / "checker.md"), re.M | re.S)
    with jax.numpy_rank_promotion("allow"), jax.enable_x64(False):  # as outside of the tests
        report = str(check_your_own_layer.check())
    for line in shown.splitlines():
        is_measured = re.match(r"  (worst|error)|\(|  +print", line)  # the last digits are the processor's, times too
        assert is_measured or line in report.splitlines(), line


def results(name: str) -> Any:
    return json.loads(read(ROOT / "benchmarks/results" / f"{name}.json"))


def test_numbers_of_slow_convolutions() -> None:
    bridges = results("bridges")["results"]
    rows = re.findall(
        r"^\| \[(#\d+)\].*\| ([\d.]+) ms \| ([\d.]+) ms \| (\d+) \|$", read(DOCS / "slow-convolutions.md"), re.M
    )
    assert len(rows) == 4
    for case, before, after, ratio in rows:
        (result,) = [result for result in bridges if result["case"] == case]
        assert float(before) == pytest.approx(result["milliseconds_before"], rel=0.02)
        assert float(after) == pytest.approx(result["milliseconds_after"], rel=0.03)
        assert int(ratio) == round(result["ratio"])
    steps = re.findall(
        r"^\| (?:Flax, `)?(\w+)`? \| (\d+) ms \| (\d+) ms \| (\d+) ms \| ([\d.]+) \|$",
        read(DOCS / "slow-convolutions.md"),
        re.M,
    )
    assert len(steps) == 4
    for case, *numbers in steps:
        patched, layers = (result for result in bridges if result["case"] == case)
        times = layers["milliseconds_before"], patched["milliseconds_after"], layers["milliseconds_after"]
        assert [float(number) for number in numbers] == pytest.approx([*times, layers["ratio"]], rel=0.03)


def test_numbers_in_the_readme() -> None:
    text = " ".join(read(ROOT / "README.md").split())
    bridges, native, cpu = results("bridges")["results"], results("native"), results("cpu")["results"]
    resnet, cnn, compilation = (
        only(row["ratio"] for row in cpu if (row["case"], row["quantity"]) == key)
        for key in (("ResNet-18, training step", "time"), ("training step", "time"), ("training step", "compilation"))
    )
    issues = [row["ratio"] for row in bridges if row["group"] == "JAX's open issues"]
    faster = f"{number(resnet)} times on a training step of ResNet-18, {number(cnn)} on one of a small CNN"
    assert f"{faster}, {min(issues):.0f} to {max(issues):.0f} on convolutions from four" in text
    assert f"a training step took {1 / compilation:.1f} times as long to compile" in text

    dense, groups = (means(native, group, "torch") for group in ("dense", "groups and depthwise"))
    step = only(row["torch"] for row in native["results"] if row["group"] == "training step" and row["case"] != "CNN")
    assert f"it takes {extent(dense)} times as long as jaxbn for ungrouped convolutions" in text
    assert f"{extent(groups)} times for grouped ones and {number(step)} times for a training step" in text
    assert only(row["torch"] for row in bridges if row["case"] == "#23713") == pytest.approx(0.1, rel=0.2)
    large = [row["ratio"] for row in cpu if re.match(r"dense \d(×\d)?( stride 2)?, 256→256", row["case"])]
    assert f"ungrouped ones of 256 channels run {extent(large)} times as fast" in text
    kinds = ("dense", "groups and depthwise", "1-D and 3-D")
    without = [mean for group in kinds for mean in means(native, group, "without")]
    assert f"convolutions that we measured take {extent(without)} times as long as with them" in text


def only(values: Iterable[float]) -> float:
    (value,) = values
    return value


def extent(values: Sequence[float]) -> str:
    return f"{number(min(values))} to {number(max(values))}"


PLAIN_JAX = {  # the rows of the first table on the page about speed, and the cases that they show
    "3×3 inside `lax.scan`": ["3×3 in lax.scan"],
    "3×3 under `vmap` over 8 inputs and kernels": ["3×3 under vmap"],
    "2, 4, 8, 32 groups": [f"groups {groups}" for groups in (2, 4, 8, 32)],
    "depthwise 3×3, 5×5, 7×7": [f"depthwise {side}×{side}" for side in (3, 5, 7)],
    "1×1": ["1×1"],
    "patches 4×4 of 32 channels, 16×16": ["patches 4×4, 32→64", "patches 16×16, 3→192"],
    "transposed, stride 2, in 2-D and 3-D": ["transposed 4×4 stride 2", "transposed 3×3×3 stride 2"],
    "3×3, 128 images of 32×32, 64→64; 64→128 with stride 2": [
        "large batch, 32×32, 64→64",
        "large batch, 32×32, 64→128, stride 2",
    ],
}
TRAINING_STEPS = {
    "a training step of ResNet-18, 128 images of 32×32": "ResNet-18, training step",
    "of the small network of `jaxbn.cnn`, as many images": "training step",
    "eight of its steps inside `lax.scan`, 32 images of 16×16": "8 training steps in scan",
    "two of ResNet-18's inside `lax.scan`, 16 images of 32×32": "ResNet-18, 2 training steps in scan",
}
KERNELS = {
    "dense, 2-D": "dense",
    "2 to 32 groups, and depthwise": "groups and depthwise",
    "1-D and 3-D": "1-D and 3-D",
    "3×3 under `vmap` over eight images and kernels": "family under vmap",
    "four images of 8×8, 8 channels": "small",
    "3×3 from 64 to 64 channels, in bfloat16": "bfloat16",
    "eight steps of `jaxbn.cnn` inside `lax.scan`": "in scan",
}


def test_numbers_of_speed() -> None:
    page, native = read(DOCS / "speed.md"), results("native")
    by_case = {(row["case"], row["quantity"]): row for row in results("cpu")["results"]}
    tables = [
        [label, *(numbers(by_case[case, map_]["ratio"] for case in cases if (case, map_) in by_case) for map_ in MAPS)]
        for label, cases in PLAIN_JAX.items()
    ]
    for label, case in TRAINING_STEPS.items():
        row = by_case[case, "time"]
        ratios = [row["ratio"], *(row["peers"][name] for name in ("Flax", "Equinox", "PyTorch"))]
        tables.append([label, *map(number, ratios)])
    for label, group in KERNELS.items():
        tables.append([label, *(numbers(means(native, group, side)) for side in ("torch", "without"))])
    lines = page.splitlines()
    for cells in tables:
        assert f"| {' | '.join(cells)} |".replace("|  |", "| |") in lines


def numbers(values: Iterable[float]) -> str:
    return ", ".join(map(number, values))


def means(native: Any, group: str, side: str) -> list[float]:
    """The geometric means of a group, for the forward pass and the two gradients, or for whole steps."""
    return [row["mean"] for row in native["summary"] if (row["group"], row["side"]) == (group, side)]


def number(value: float) -> str:
    """Two digits of it."""
    return f"{value:.2f}" if value < 0.995 else f"{value:.1f}" if value < 9.95 else f"{value:.0f}"


def test_the_version_is_the_same_everywhere() -> None:
    assert f"\nversion: {jaxbn.__version__}\n" in read(ROOT / "CITATION.cff")
    heading, released = re.findall(r"^## (\S+) \((.*)\)$", read(ROOT / "CHANGELOG.md"), re.MULTILINE)[0]
    assert heading == jaxbn.__version__
    assert f"\ndate-released: {released}\n" in read(ROOT / "CITATION.cff")
