"""The site's sources: the reference has every public name, every page is in a table of contents, every link leads on.

The site itself is built by ``python -m sphinx -W --keep-going -b html docs build/docs``, which these tests do not need.
"""

import importlib
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

import jaxbn
from examples import check_your_own_layer
from tests.support.compiled import environment_without_effort

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
SHARED = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "examples/trainer/README.md"]
SUBMODULES = sorted(set(dir(jaxbn)) - set(jaxbn.__all__) - {"__version__"})
EXAMPLES = ("getting-started", "coming-from", "slow-convolutions", "training", "memory", "checker")
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


def test_examples_run() -> None:
    """Each page's Python in a namespace of its own, all in one process."""
    texts = {page: read(DOCS / f"{page}.md") for page in EXAMPLES}
    blocks = {page: re.findall(r"^```python\n(.*?)^```", text, re.M | re.S) for page, text in texts.items()}
    assert all(blocks.values())
    assert not [page for page in PAGES if page.stem not in EXAMPLES and "```python\n" in read(page)]
    programs = {page: "\n".join(code) for page, code in blocks.items()}
    run = f"for page, code in {programs!r}.items(): exec(compile(code, page, 'exec'), {{}}); jaxbn.unpatch_jax()"
    env = environment_without_effort() | {"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"}
    done = subprocess.run(
        [sys.executable, "-c", f"import jaxbn\n{run}"], cwd=ROOT, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "2 layers compute by jaxbn: layers.0, layers.1" in done.stdout
    (accuracy,) = re.findall(r"^test accuracy: (.*)%$", done.stdout, re.MULTILINE)
    assert float(accuracy) >= 97


def test_the_report_on_the_page_is_the_checkers() -> None:
    (shown,) = re.findall(r"^```text\n(check_custom_vjp of .*?)^```", read(DOCS / "checker.md"), re.M | re.S)
    with jax.numpy_rank_promotion("allow"), jax.enable_x64(False):  # as outside of the tests
        report = str(check_your_own_layer.check())
    for line in shown.splitlines():
        is_measured = re.match(r"  (worst|error)|\(|  +print", line)  # the last digits are the processor's, times too
        assert is_measured or line in report.splitlines(), line


def test_numbers_on_the_pages_are_those_of_the_results() -> None:
    bridges = json.loads(read(ROOT / "benchmarks/results/bridges.json"))["results"]
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
