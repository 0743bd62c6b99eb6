"""The notebooks: their cells run, and they say what their text says, as committed and when they are executed now."""

import base64
import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_notebook

from examples.notebooks import FOLDER, execute, paths, pictures, printed, read, tidy
from tests.support.compiled import environment_without_effort

DERIVE, FASTER = "derive_and_check.ipynb", "make_a_model_faster.ipynb"
SHORTER = {
    "STEPS, BATCH, WIDTH, GROUPS = 100, 32, 32, 4": "STEPS, BATCH, WIDTH, GROUPS = 12, 16, 32, 4",
    "TURNS = 25": "TURNS = 1",
}


def executed(name: str) -> nbformat.NotebookNode:
    """The notebook after a run of fewer and smaller steps, compiled quickly."""
    notebook = read(FOLDER / name)
    if name == FASTER:
        for long, short in SHORTER.items():
            cells = [cell for cell in notebook.cells if long in cell.source]
            assert len(cells) == 1, long
            cells[0].source = cells[0].source.replace(long, short)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    execute(notebook, environment_without_effort())
    return notebook


@pytest.fixture(params=["committed", "executed"])
def derive(request: pytest.FixtureRequest) -> nbformat.NotebookNode:
    return read(FOLDER / DERIVE) if request.param == "committed" else executed(DERIVE)


@pytest.fixture(params=["committed", "executed"])
def faster(request: pytest.FixtureRequest) -> nbformat.NotebookNode:
    return read(FOLDER / FASTER) if request.param == "committed" else executed(FASTER)


def numbers(pattern: str, text: str) -> list[float]:
    return [float(found.replace(",", "")) for found in re.findall(pattern, text, re.MULTILINE)]


def is_png(picture: str) -> bool:
    return base64.b64decode(picture).startswith(b"\x89PNG")


def test_derive_and_check(derive: nbformat.NotebookNode) -> None:
    text = printed(derive)
    names = ["directly", "through the norm", "through the mean", "x, all three paths", "gamma", "beta"]
    assert re.findall(r"^(.+?) +largest difference from autodiff", text, re.MULTILINE) == names
    assert max(numbers(r"largest difference from autodiff ([-+.e\d]+),", text)) < 1e-13
    with_norm, with_mean = numbers(r"along x: ([-+.\d]+)$", text)
    assert abs(with_norm) > 1
    assert with_norm == pytest.approx(-with_mean, abs=1e-5)

    failed, passed = re.findall(r"^check_custom_vjp of (\w+)\(x: .+\): (.+)$", text, re.MULTILINE)
    assert failed == ("forgetful_response_norm", "FAILED, 1 failure")
    assert re.findall(r"^gradient: the cotangent of `(\w+)` is wrong", text, re.MULTILINE) == ["x"]
    assert "  cause      a term parallel to `x` is missing or has a wrong factor, with a factor for each" in text
    assert "for each index of axes 0 and 3\n" in text
    assert passed == ("response_norm", "passed")
    assert "; jit; vmap; vmap of the pullback; scan; checkpoint; grad of grad; jvp of grad\n" in text

    by_autodiff, by_hand = numbers(r"computed and kept +([\d,]+)$", text)
    assert by_hand == 4 * 32 * 64  # a norm for each image and channel
    assert by_autodiff > 4 * 32 * 16 * 16 * 64  # more than an array of the size of x
    assert max(numbers(r"between the sum of the three paths and jax.grad: ([-+.e\d]+)$", text)) < 1e-4
    sizes = numbers(r"gradient of size ([.\d]+);", text)
    errors = numbers(r"without the third path it is wrong by ([.\d]+)$", text)
    assert [error > size for size, error in zip(sizes, errors, strict=True)] == [False, True, True]
    assert [is_png(picture) for picture in pictures(derive)] == [True]


def test_make_a_model_faster(faster: nbformat.NotebookNode) -> None:
    text = printed(faster)
    layers = ["block1.depthwise", "block1.grouped", "block1.norm", "block2.depthwise", "block2.grouped", "block2.norm"]
    assert f"7 layers compute by jaxbn: {', '.join([*layers, 'stem'])}\n" in text
    first, last = numbers(r"^loss at the start ([.\d]+),", text), numbers(r"at the end ([.\d]+) before", text)
    assert last[0] < first[0]
    assert 0 < numbers(r"^largest difference: ([-+.e\d]+) in the first ten", text)[0] < 1e-4  # 0 if nothing was swapped
    right = numbers(r"^\w+: (\d+) of 360 test images are classified correctly$", text)
    assert len(right) == 2
    assert abs(right[0] - right[1]) <= 4

    on_a_gpu = re.findall(r"^(.+) on an NVIDIA GPU:\n((?:\w.+\n)+)", text, re.MULTILINE)
    algorithms = {name: {line.split()[1] for line in lines.splitlines()} for name, lines in on_a_gpu}
    assert algorithms == {"depthwise 5×5": {"dense"}, "grouped 3×3": {"dense"}, "dense 1×1": {"pointwise"}}
    assert len(re.findall(r"^\S+ \S+ on a CPU:$", text, re.MULTILINE)) == 3

    compared = re.findall(r"^(.+): [.\d]+ ms before, [.\d]+ ms after, [.\d]+ times$", text, re.MULTILINE)
    assert compared == ["gradient of convolve2d", "dense 1×1, 256 channels", "dense 3×3, 128 channels"]
    of_convolve2d, *_ = differences = numbers(r"results differ by ([-+.e\d]+) of the largest entry$", text)
    assert of_convolve2d > 0  # 0 if the patch had not reached it
    assert len(differences) == 3
    assert max(differences) < 1e-5
    assert [is_png(picture) for picture in pictures(faster)] == [True]


@pytest.mark.parametrize("path", paths(), ids=lambda path: path.stem)
def test_what_is_committed_is_a_run_from_top_to_bottom(path: Path) -> None:
    notebook, tidied = read(path), read(path)
    tidy(tidied)
    assert notebook == tidied
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert path.stat().st_size < 150_000
    assert not re.search(r"/(home|root|tmp|usr|work|Users)/|site-packages", path.read_text(encoding="utf-8"))
    streams = {output.name for cell in notebook.cells for output in cell.get("outputs", ()) if "name" in output}
    assert streams == {"stdout"}
    assert not re.search(r"[\r\x1b]", printed(notebook))


def test_the_kernel_is_of_this_environment() -> None:
    notebook = new_notebook(cells=[new_code_cell("import sys\nprint(sys.prefix)")])
    execute(notebook)
    assert printed(notebook) == f"{sys.prefix}\n"


def test_a_cell_that_raises_is_an_error() -> None:
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        execute(new_notebook(cells=[new_code_cell("1 / 0")]))


def test_tidy_removes_what_differs_from_run_to_run() -> None:
    cell = new_code_cell("print(1)", metadata={"execution": {"iopub.execute_input": "2026-01-01T00:00:00Z"}})
    cell.outputs = [
        nbformat.v4.new_output("stream", name=name, text=text) for name, text in (("stderr", " \r"), ("stdout", "1\n"))
    ]
    notebook = new_notebook(cells=[cell], metadata={"language_info": {"name": "python", "version": "3.11.9"}})
    tidy(notebook)
    assert printed(notebook) == "1\n"
    assert len(cell.outputs) == 1
    assert not cell.metadata
    assert notebook.metadata.language_info == {"name": "python"}
