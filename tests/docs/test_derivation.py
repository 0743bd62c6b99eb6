"""`docs/derivation.md`: its examples run, its links lead somewhere, its errata are complete, its figures are right."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.axes import Axes

from docs import figures
from docs.figures import convolution, normalisation
from jaxbn import reference
from tests.support.compare import assert_close
from tests.support.compiled import environment_without_effort

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "derivation.md"
TEXT = PAGE.read_text(encoding="utf-8")
PROSE = re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL)

# Where the deck is wrong, what it prints, what is right: a piece of each, in the order of the deck's list of errata.
ERRATA = [
    ("D16, third term", "+ (1/m)·2·(C-μ)·γ·0.5/(σ²+ε)^(-3/2)", "− γ·(C-μ)·(σ²+ε)^(-3/2)"),
    ("D6, D8", "δ(1,1)·K(1,1)", "δ(0,0)"),
    ("D6", "H", "K"),
    ("D5, narrowed sum", "i'-(N-1)/2", "δ = 0"),
    ("D5, last algebra line", "δ(k, i+n, j+m)", "δ(k, i'+n, j'+m)"),
    ("D7", "δ(cin, i, j)", "δ(k, i, j)"),
    ("D4, D18", "K + lr·∂Loss/∂K", "K − lr·∂Loss/∂K"),
    ("D4", "0 ≤ i < I-1-N+1", "(N-1)/2 ≤ i < I-(N-1)/2"),
    ("D1", "N < I", "N ≤ I"),
    ("D3, gradient of the bias", "not given", "Σᵢ Σⱼ δ(k,i,j)"),
    ("D10", "M-1", "m"),
    ("D3's range on later slides", "i < I-1-(N-1)/2", "i < I-(N-1)/2"),
    ('"Heavy math", first line', "I-(N-1)/2", "I-1-(N-1)/2"),
    ("D13 to D16", "B·N·M", "γ_k"),
    ("D15, through μ", "(1/m)·δ_{b'b}δ_{i'i}δ_{j'j}", "1/m"),
    ("D15, σ² slide", "C_{b,n,m}", "C_{b,i,j}"),
    ("D15, through σ²", "left out without a word", "Σ (C-μ) = 0"),
]


def test_examples_run() -> None:
    """By the command on the page, with none of the tests' settings of JAX."""
    assert TEXT.count("\n>>> ") > 140
    (command,) = re.findall(r"`python (-m doctest \S+)`", TEXT)
    env = environment_without_effort() | {"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"}
    done = subprocess.run([sys.executable, *command.split()], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_formula_of_the_deck_is_there() -> None:
    assert set(re.findall(r"\bD\d+\b", PROSE)) == {f"D{number}" for number in range(1, 19)}


def test_every_erratum_is_there_with_its_proof() -> None:
    table = re.findall(r"^\| \[E(\d+)\]\(#e\1\) \| (.*) \| (.*) \| (.*) \|$", TEXT, re.MULTILINE)
    proofs = re.findall(r"^### E(\d+)\n\n\*\*(.*?)\.\*\* .*?```pycon\n(.*?)```", TEXT, re.DOTALL | re.MULTILINE)
    numbers = [str(number + 1) for number in range(len(ERRATA))]
    assert [row[0] for row in table] == [proof[0] for proof in proofs] == numbers
    for row, proof, (where, printed, right) in zip(table, proofs, ERRATA, strict=True):
        assert row[1] == proof[1]
        assert row[1].startswith(where)
        assert printed in row[2]
        assert right in row[3]
        assert "\nFalse True\n" in proof[2]
        assert "\nTrue" not in proof[2]


def test_links_lead_somewhere() -> None:
    headings = re.findall(r"^#+ (.*)$", PROSE, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    links = re.findall(r"\[([^][]*)\]\(([^()]*)\)", PROSE)
    assert len(links) > 60
    for text, target in links:
        if target.startswith("#"):
            assert target[1:] in anchors, target
            continue
        path = (PAGE.parent / target).resolve()
        assert path.is_file(), target
        name = text.strip("`").split(".")[-1]
        if text.startswith("`") and text != f"`{path.name}`" and name not in path.with_suffix("").parts:
            assert name in defined_in(path), text


def defined_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    targets = (target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets)
    assigned = {target.id for target in targets if isinstance(target, ast.Name)}
    return assigned | {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def test_math_survives_githubs_markdown() -> None:
    """Which takes a backslash before punctuation for an escape, and an underscore behind punctuation for emphasis."""
    formulas = re.findall(r"^\$\$\n(.*?)\n\$\$$", TEXT, re.DOTALL | re.MULTILINE)
    assert len(formulas) > 15
    assert PROSE.count("$") == 4 * len(formulas)
    for formula in formulas:
        assert not re.search(r"\\[^A-Za-z]|[^\w\s]_|[*<>]", formula), formula
        assert formula.count("{") == formula.count("}")


def test_figures_are_drawn_alike_each_time_and_committed(tmp_path: Path) -> None:
    with jax.numpy_rank_promotion("allow"), jax.enable_x64(False):  # as outside of the tests
        figures.write(tmp_path / "once")
        figures.write(tmp_path / "again")
    drawn = {path.name: path.read_bytes() for path in (tmp_path / "once").iterdir()}
    assert drawn == {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()}
    committed = {path.name: path for path in (ROOT / "docs" / "figures").glob("*.svg")}
    assert committed.keys() == drawn.keys()
    for name, path in committed.items():
        assert any(f"](figures/{name})" in page.read_text(encoding="utf-8") for page in PAGE.parent.glob("*.md"))
        assert path.stat().st_size < 200_000
        assert texts(path.read_text(encoding="utf-8")) == texts(drawn[name].decode())


def texts(svg: str) -> list[str]:
    """What is written in a figure: Matplotlib notes it beside the letters' outlines. Rounding is the machine's."""
    return [re.sub(r"difference \S+", "", text) for text in re.findall(r"<!-- (.*?) -->", svg)]


def in_cells(axes: Axes) -> dict[tuple[int, int], str]:
    """The texts in the middle of cells, by row and column."""
    places = (
        (*text.get_position()[::-1], text.get_text()) for text in axes.texts if text.get_transform() == axes.transData
    )
    return {(int(i), int(j)): text for i, j, text in places if i == int(i) and j == int(j) and text}


def numbers_in(axes: Axes, indices: range) -> np.ndarray:
    cells = in_cells(axes)
    return np.array([[float(cells[i, j].replace("−", "-")) for j in indices] for i in indices])


def layer(a: jax.Array, kernel: jax.Array) -> jax.Array:
    """The deck's convolution of one image of one channel."""
    a, kernel = jnp.expand_dims(a, (0, 3)), jnp.expand_dims(kernel, (2, 3))
    return reference.conv(a, kernel, flip_kernel=True)[0, :, :, 0]


def example() -> tuple[jax.Array, jax.Array, jax.Array]:
    a, kernel, delta = (jnp.asarray(array, jnp.float64) for array in (convolution.A, convolution.K, convolution.DELTA))
    return a, kernel, delta


def test_the_padded_delta_and_the_kernel_gradient_are_autodiffs() -> None:
    a, kernel, delta = example()
    da, dkernel = jax.grad(lambda a, kernel: jnp.sum(delta * layer(a, kernel)), (0, 1))(a, kernel)
    drawing = convolution.padded_delta().axes
    np.testing.assert_array_equal(numbers_in(drawing[-1], range(5)), da)
    np.testing.assert_array_equal(numbers_in(drawing[0], range(-1, 2)), kernel)
    for axes, place in zip(drawing[1:3], (0, 2), strict=True):
        np.testing.assert_array_equal(numbers_in(axes, range(-1, 6)), np.pad(delta, 2))
        assert axes.texts[14].get_text().endswith(f"= {da[place, place]:g}".replace("-", "−"))
    drawing = convolution.kernel_gradient().axes
    np.testing.assert_array_equal(numbers_in(drawing[-1], range(-1, 2)), dkernel)
    np.testing.assert_array_equal(numbers_in(drawing[0], range(1, 4)), delta)
    for axes, place in zip(drawing[1:3], (0, 2), strict=True):
        np.testing.assert_array_equal(numbers_in(axes, range(5)), a)
        assert axes.texts[10].get_text().endswith(f"= {dkernel[place, place]:g}")


def test_a_pixel_reaches_what_the_jacobian_says() -> None:
    a, _, _ = example()
    kernel = jnp.arange(1.0, 10.0).reshape(3, 3)
    jacobian = np.asarray(jax.jacobian(layer)(a, kernel))
    *boards, counts = convolution.reach().axes
    for axes, (i, j) in zip(boards, [(0, 0), (1, 3), (2, 2)], strict=True):
        assert axes.get_title() == f"pixel a({i},{j})"
        factors = np.zeros((3, 3))
        for (row, column), text in in_cells(axes).items():
            n, m = map(int, re.findall(r"-?\d", text.replace("−", "-")))
            factors[row - 1, column - 1] = kernel[n + 1, m + 1]
        np.testing.assert_array_equal(factors, jacobian[:, :, i, j])
    np.testing.assert_array_equal(numbers_in(counts, range(5)), np.count_nonzero(jacobian, (0, 1)))


def test_an_input_reaches_what_its_stride_and_dilation_let_it() -> None:
    kernel = jnp.arange(1.0, 4.0).reshape(3, 1, 1)

    def layer_of_steps(x: jax.Array, stride: int, dilation: int) -> jax.Array:
        return reference.conv(jnp.expand_dims(x, (0, 2)), kernel, stride=stride, dilation=dilation)[0, :, 0]

    for axes, (stride, dilation) in zip(convolution.reach_of_steps().axes, [(1, 1), (2, 1), (1, 2)], strict=True):
        assert axes.get_title() == f"stride {stride}, dilation {dilation}"
        jacobian = np.asarray(jax.jacobian(layer_of_steps)(jnp.zeros(7), stride, dilation))
        written = [text.get_text() for text in axes.texts]
        assert [int(text[:-1]) for text in written if text.endswith("×")] == np.count_nonzero(jacobian, 0).tolist()
        factors = [float(text[2]) + 1 for text in written if text.startswith("K(")]
        assert factors == jacobian[jacobian[:, 3] != 0, 3].tolist()


def test_the_three_terms_are_autodiffs_and_their_difference_is_as_written() -> None:
    found = normalisation.activation()

    def plain(C: jax.Array) -> jax.Array:
        gamma = jnp.asarray(found.gamma)
        return reference.batch_norm(C, gamma, jnp.zeros_like(gamma), axis=1, epsilon=normalisation.EPSILON)[0]

    (truth,) = jax.vjp(plain, jnp.asarray(found.C))[1](jnp.asarray(found.delta))
    assert_close(found.autodiff, np.asarray(truth), 1e-12)

    figure = normalisation.three_terms()
    difference, largest = map(float, re.findall(r"\d\.\de[+-]\d\d", figure.get_supxlabel()))
    assert difference == pytest.approx(np.abs(found.terms.total - found.autodiff).max(), rel=0.05)
    assert largest == pytest.approx(np.abs(found.autodiff).max(), rel=0.05)
    assert difference < 1e-12 * largest

    panels = np.array(figure.axes).reshape(2, 7)
    for row in range(2):
        C, delta, *terms, total = (np.asarray(axes.images[0].get_array()) for axes in panels[row, 1:])
        (channel,) = (k for k in range(8) if np.array_equal(C, found.C[row, k]))
        np.testing.assert_array_equal(delta, found.delta[row, channel])
        assert_close(sum(terms), total, 1e-15)
        assert_close(total, np.asarray(truth)[row, channel], 1e-12)
        assert len(np.unique(terms[1])) == 1
