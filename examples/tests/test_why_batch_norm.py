"""The sweep: that it is one program, that its runs are what they are alone, that its shares are right."""

import contextlib
import importlib
import io
import re
from collections.abc import Iterator
from functools import cache, partial
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from examples import digits
from examples.digits import Digits
from jaxbn import cnn

EXAMPLES = Path(__file__).parents[1]
pytestmark = pytest.mark.optimised  # the runs take longer than what is saved by compiling them quickly

CONFIG = cnn.CNNConfig(features=(8, 16, 32), dtype=jnp.float64)
TRIAL = cnn.CNNConfig(features=(4, 8), dtype=jnp.float64)


@pytest.fixture(scope="module", autouse=True)
def as_a_user_runs_it() -> Iterator[None]:
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@cache
def load_digits() -> Digits:
    found = digits.load_digits()
    return found._replace(x_train=found.x_train.astype(np.float64), x_test=found.x_test.astype(np.float64))


@pytest.fixture(scope="module")
def example() -> Iterator[ModuleType]:
    """In float64: in float32 two programs part as soon as rounding puts one value on the other side of a ReLU.

    Of ten steps between two looks at the test images, so that twenty have two.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        module = importlib.import_module("why_batch_norm")
        patch.setattr(module, "TRIAL", TRIAL)
        patch.setattr(module, "CHUNK", 10)
        patch.setattr(module, "load_digits", load_digits)
        yield module


@pytest.fixture(scope="module")
def quick(example: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path, str]:
    """The reduced form: its results, its folder and what it prints."""
    folder, kept, printed = tmp_path_factory.mktemp("quick") / "made" / "here", [], io.StringIO()
    whole = example.sweep

    def sweep(*options: Any) -> Any:
        kept.append(whole(*options))
        return kept[-1]

    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(example, "sweep", sweep)
        example.main(["--quick", "--output", str(folder)])
    return kept[0], folder, printed.getvalue()


def test_the_reduced_form_draws_its_pictures_and_concludes_nothing(quick: tuple[Any, Path, str]) -> None:
    sweep, folder, printed = quick
    assert sorted(path.name for path in folder.iterdir()) == ["distributions.png", "learning_rates.png", "zeros.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in folder.iterdir())
    assert f"pictures: {folder}" in printed
    assert printed.splitlines()[-1] == (
        "This was a trial of the program: runs of 20 steps say nothing about batch norm. Leave out --quick."
    )
    assert len(printed.splitlines()) == 3
    assert sweep.rates[[0, -1]].tolist() == pytest.approx([1e-3, 30])
    assert sweep.record.zeros.shape == (5, 4, 2, 20, 2)
    assert sweep.record.dead.shape == (5, 4, 2, 2, 2)


def test_an_output_that_is_no_folder(example: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(SystemExit) as left:
        example.main(["--output", str(tmp_path / "taken")])
    assert left.value.code == 2
    assert capsys.readouterr().err.endswith(f"argument --output: {str(tmp_path / 'taken')!r}: File exists\n")


def test_all_runs_are_one_compiled_program(example: ModuleType, quick: tuple[Any, Path, str]) -> None:
    assert example.train_all._cache_size() == 1


def alone(variant: int, rate: float, seed: int, steps: int) -> list[float]:
    """The losses of one run, without the example, vmap or Optax's updates."""
    dataset, k = load_digits(), (np.inf, np.inf, 2.0, 1.0, 0.5)[variant]
    params, running = initial(seed)
    losses = []
    for number in range(steps):
        rows = np.asarray(rows_of(seed, number, len(dataset.x_train)))
        batch = dataset.x_train[rows], dataset.y_train[rows]
        value, params = (plain_step if variant == 0 else normalised_step)(rate, k, params, running, *batch)
        losses.append(float(value))
    return losses


@cache
def initial(seed: int) -> tuple[cnn.Params, cnn.State]:
    return cnn.init(jax.random.key(seed), TRIAL)


@partial(jax.jit, static_argnums=2)
def rows_of(seed: jax.Array, number: jax.Array, images: int) -> jax.Array:
    return jax.random.randint(jax.random.fold_in(jax.random.key(seed), number), (64,), 0, images)


@jax.jit
def normalised_step(rate: jax.Array, k: jax.Array, params: cnn.Params, *batch: Any) -> tuple[jax.Array, cnn.Params]:
    value, gradients = normalised_loss(params, *batch)
    params = jax.tree.map(lambda param, gradient: param - rate * gradient, params, gradients)
    blocks = [block._replace(beta=jnp.maximum(block.beta, -k * jnp.abs(block.gamma))) for block in params.blocks]
    return value, params._replace(blocks=tuple(blocks))


@jax.jit
def plain_step(rate: jax.Array, k: jax.Array, params: cnn.Params, *batch: Any) -> tuple[jax.Array, cnn.Params]:
    value, gradients = plain_loss(params, *batch)
    return value, jax.tree.map(lambda param, gradient: param - rate * gradient, params, gradients)


@jax.value_and_grad
def normalised_loss(params: cnn.Params, running: cnn.State, images: jax.Array, labels: jax.Array) -> jax.Array:
    logits, _ = cnn.apply(params, running, images, train=True)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


@jax.value_and_grad
def plain_loss(params: cnn.Params, running: cnn.State, images: jax.Array, labels: jax.Array) -> jax.Array:
    x = images
    for index, block in enumerate(params.blocks):
        stride = (2, 2) if index else (1, 1)
        x = lax.conv_general_dilated(x, block.kernel, stride, "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        x = jax.nn.relu(x + block.beta)
    logits = x.mean((1, 2)) @ params.dense.kernel + params.dense.bias
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def test_a_member_is_what_it_is_alone(quick: tuple[Any, Path, str]) -> None:
    """Where the learning rate is at most 1, over twenty steps; where it is 30 and β reaches its bound, over five."""
    sweep, *_ = quick
    for variant, (place, steps), seed in product(range(5), enumerate((20, 20, 20, 5)), range(2)):
        want = alone(variant, float(sweep.rates[place]), seed, steps)
        np.testing.assert_allclose(sweep.record.loss[variant, place, seed, :steps], want, rtol=1e-8)


def numpy_layers(
    params: cnn.Params, images: np.ndarray, given: list[tuple[np.ndarray, np.ndarray]] | None = None
) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray], list[tuple[np.ndarray, np.ndarray]]]:
    """Logits, each layer's convolution, each layer's input of the ReLU, each layer's mean and variance."""
    x, convolved, shifted, moments = images, [], [], []
    for index, block in enumerate(params.blocks):
        stride = (2, 2) if index else (1, 1)
        dimensions = ("NHWC", "HWIO", "NHWC")
        x = lax.conv_general_dilated(jnp.asarray(x), block.kernel, stride, "SAME", dimension_numbers=dimensions)
        x = np.asarray(x)
        convolved.append(x)
        if block.gamma is not None:
            mean, var = given[index] if given else (x.mean((0, 1, 2)), x.var((0, 1, 2)))
            moments.append((mean, var))
            x = np.asarray(block.gamma) * (x - mean) / np.sqrt(var + 1e-5)
        shifted.append(x + np.asarray(block.beta))
        x = np.maximum(shifted[-1], 0)
    return x.mean((1, 2)) @ np.asarray(params.dense.kernel) + np.asarray(params.dense.bias), convolved, shifted, moments


@pytest.mark.parametrize("normalised", [True, False])
def test_the_shares_are_numpys(example: ModuleType, normalised: bool) -> None:
    dataset = load_digits()
    params = jax.tree.map(lambda leaf: leaf[1], example.init(jnp.array([0, 1]), CONFIG))
    dead = [0, 3, 5]  # channels of each layer
    blocks = [
        block._replace(beta=jnp.where(jnp.arange(len(block.beta)) < number, -50.0, 0.3))
        for block, number in zip(params.blocks, dead, strict=True)
    ]
    params = params._replace(blocks=tuple(blocks))
    params = params if normalised else example.without_batch_norm(params)

    images, labels = dataset.x_train[40:80], dataset.y_train[40:80]
    _, convolved, shifted, _ = numpy_layers(params, images)
    _, (_, zeros, *histograms) = jax.jit(example.loss)(params, images, labels)
    np.testing.assert_allclose(zeros, [np.mean(layer <= 0) for layer in shifted], rtol=1e-6)
    for got, values in zip(histograms, (convolved[1], shifted[1]), strict=True):
        want, _ = np.histogram(values[:8].clip(-1000, 1000), example.EDGES)
        np.testing.assert_allclose(got, want / want.sum(), atol=1e-6)

    *_, moments = numpy_layers(params, dataset.x_train[:360])
    logits, *_ = numpy_layers(params, dataset.x_test[:], moments)
    accuracy, shares, finite = jax.jit(example.evaluate)(dataset, params)
    assert float(accuracy[0]) == pytest.approx(np.mean(logits.argmax(-1) == dataset.y_test))
    assert shares[0].tolist() == [number / len(block.beta) for number, block in zip(dead, blocks, strict=True)]
    assert finite.tolist() == [True]


def test_a_run_that_diverged_tells_nothing_right_but_by_chance(example: ModuleType) -> None:
    dataset = load_digits()
    params = jax.tree.map(lambda leaf: leaf[0] * jnp.nan, example.init(jnp.array([0]), CONFIG))
    accuracy, dead, finite = jax.jit(example.evaluate)(dataset, params)
    assert float(accuracy[0]) == pytest.approx(0.1)
    assert dead.tolist() == [[0.0] * 3]
    assert finite.tolist() == [False]


def test_the_answer_counts_seeds(example: ModuleType) -> None:
    """Of five learning rates the largest that learnt, a row for each variant, a column for each seed."""
    results = importlib.import_module("why_batch_norm_results")
    rates = np.array([0.1, 1.0, 2.0, 4.0, 8.0])
    largest = np.array([[0.1, 0, 1], [1, 1, 2], [2, 2, 2], [1, 2, 2], [0.1, 1, 2]])
    learnt = rates[:, None] <= largest[:, None, :]
    accuracy = np.stack([np.full(learnt.shape, 0.2), np.where(learnt, 0.95, 0.3)], -1)
    finite = np.stack([np.ones_like(learnt), np.ones_like(learnt)], -1)
    finite[3, 4, :2, -1] = False
    record = results.Record(np.zeros((5, 5, 3, 40)), None, None, None, accuracy, None, finite)
    said = results.answer(results.Sweep(example.VARIANTS, rates, example.EDGES, record)).splitlines()
    table = {line.split("  ")[0]: line.split() for line in said[6:12]}
    assert " ".join(table["no batch norm"][3:]) == "0.1 0 1 73.3% 20.0% 0 learnt, 0 NaN, 6 stuck"
    assert " ".join(table["batch norm, k = 1"][5:]) == "1 2 2 95.0% 20.0% 0 learnt, 2 NaN, 4 stuck"
    counts = re.findall(r"higher for (\d) and lower for (\d) of 3 seeds, ([\d.]+) times", "\n".join(said))
    assert counts == [("3", "0", "4.47"), ("2", "0", "1.59"), ("1", "0", "1.26"), ("0", "1", "0.46")]
    assert said[-2].endswith("(D11)? yes")
    assert said[-1].endswith("k = 2: for most seeds; k = 1: for few seeds; k = 0.5: no")
