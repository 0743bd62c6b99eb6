"""The sweep: that it is one program, that its runs are what they are alone, that its shares are right."""

import contextlib
import importlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from jaxbn import cnn, data

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module", autouse=True)
def as_a_user_runs_it() -> Iterator[None]:
    """Without the settings of the tests."""
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="module")
def example() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        yield importlib.import_module("why_batch_norm")


@pytest.fixture(scope="module")
def quick(example: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path, str]:
    """The reduced form: its results, its folder and what it prints."""
    folder, kept, printed = tmp_path_factory.mktemp("quick") / "made" / "here", [], io.StringIO()
    sweep = example.sweep
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(example, "sweep", lambda *arguments: kept.append(sweep(*arguments)) or kept[-1])
        example.main(["--quick", "--output", str(folder)])
    return kept[0], folder, printed.getvalue()


def test_the_reduced_form_draws_its_pictures_and_ends_with_the_answer(quick: tuple[Any, Path, str]) -> None:
    sweep, folder, printed = quick
    assert sorted(path.name for path in folder.iterdir()) == ["distributions.png", "learning_rates.png", "zeros.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in folder.iterdir())
    assert f"pictures: {folder}" in printed
    assert re.search(r'"\?\?\?" \(D12\)\? k = 2: .+; k = 1: .+; k = 0.5: .+$', printed.splitlines()[-1])
    assert sweep.rates[[0, -1]].tolist() == pytest.approx([1e-3, 30])
    assert sweep.record.zeros.shape == (5, 4, 2, 60, 3)
    assert sweep.record.dead.shape == (5, 4, 2, 3, 3)


def test_all_runs_are_one_compiled_program(example: ModuleType, quick: tuple[Any, Path, str]) -> None:
    assert example.train_all._cache_size() == 1


def alone(variant: int, rate: float, seed: int, steps: int) -> tuple[list[float], cnn.Params]:
    """The losses of one run, without the example, vmap or Optax's updates."""
    dataset, k = data.load_digits(), (np.inf, np.inf, 2.0, 1.0, 0.5)[variant]
    params, running = cnn.init(jax.random.key(seed), cnn.CNNConfig(features=(8, 16, 32)))
    losses = []
    for number in range(steps):
        key = jax.random.fold_in(jax.random.key(seed), number)
        rows = np.asarray(jax.random.randint(key, (64,), 0, len(dataset.x_train)))
        batch = dataset.x_train[rows], dataset.y_train[rows]
        value, gradients = (plain_loss if variant == 0 else normalised_loss)(params, running, *batch)
        params = jax.tree.map(lambda param, gradient: param - np.float32(rate) * gradient, params, gradients)
        if variant:
            blocks = [
                block._replace(beta=jnp.maximum(block.beta, -k * jnp.abs(block.gamma))) for block in params.blocks
            ]
            params = params._replace(blocks=tuple(blocks))
        losses.append(float(value))
    return losses, params


@jax.jit
@jax.value_and_grad
def normalised_loss(params: cnn.Params, running: cnn.State, images: jax.Array, labels: jax.Array) -> jax.Array:
    logits, _ = cnn.apply(params, running, images, train=True)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


@jax.jit
@jax.value_and_grad
def plain_loss(params: cnn.Params, running: cnn.State, images: jax.Array, labels: jax.Array) -> jax.Array:
    x = images
    for index, block in enumerate(params.blocks):
        stride = (2, 2) if index else (1, 1)
        x = lax.conv_general_dilated(x, block.kernel, stride, "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        x = jax.nn.relu(x + block.beta)
    logits = x.mean((1, 2)) @ params.dense.kernel + params.dense.bias
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


@pytest.mark.parametrize("variant", range(5))
def test_a_member_is_what_it_is_alone(quick: tuple[Any, Path, str], variant: int) -> None:
    """Where the learning rate is at most 1: over the first twenty steps."""
    sweep, *_ = quick
    for place, rate in enumerate(sweep.rates[:3].tolist()):
        for seed in range(2):
            losses, _ = alone(variant, rate, seed, 20)
            np.testing.assert_allclose(sweep.record.loss[variant, place, seed, :20], losses, rtol=1e-5, atol=1e-5)
