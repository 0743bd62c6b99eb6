"""The exported network, in a process that has JAX and not this package."""

import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from examples.trainer import training
from jaxbn import cnn

pytestmark = pytest.mark.usefixtures("quickly_compiled")

SIZES = (1, 2, 7)

PROGRAM = """
import sys
sys.modules["jaxbn"] = None
import jax, numpy as np
from pathlib import Path

with np.load("images.npz") as file:
    batches = dict(file)
for name in ("one", "three"):
    network = jax.export.deserialize(Path(name).read_bytes())
    assert network.platforms == ("cpu", "cuda", "tpu"), network.platforms
    np.savez(f"{name}.npz", **{size: network.call(images) for size, images in batches.items()})
"""


def network(members: int | None) -> training.TrainState:
    """One in which every parameter counts, and every running statistic."""
    keys = jax.random.key(0) if members is None else jax.random.split(jax.random.key(0), members)
    config = cnn.CNNConfig(classes=4, in_channels=2, features=(5, 3))
    state = training.create_train_state(keys, config, optax.identity())
    rng = np.random.default_rng(members)

    def drawn(leaf: jax.Array) -> jax.Array:
        return jax.numpy.asarray(rng.uniform(0.5, 1.5, leaf.shape), leaf.dtype) * (leaf if leaf.ndim > 2 else 1)

    return state._replace(params=jax.tree.map(drawn, state.params), running=jax.tree.map(drawn, state.running))


def probabilities(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64))
    shares = powers / powers.sum(-1, keepdims=True)
    return shares if shares.ndim == 2 else shares.mean(0)


def test_it_needs_jax_alone_and_gives_probabilities_of_any_number_of_images(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = {str(size): rng.normal(size=(size, 7, 5, 2)).astype(np.float32) for size in SIZES}
    np.savez(tmp_path / "images.npz", **images)  # pyright: ignore[reportArgumentType]
    networks = {"one": network(None), "three": network(3)}
    for name, state in networks.items():
        (tmp_path / name).write_bytes(training.export_network(state, (7, 5, 2)))
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name, state in networks.items():
        with np.load(tmp_path / f"{name}.npz") as file:
            got = dict(file)
        for size, batch in images.items():
            assert got[size].dtype == np.float32
            want = probabilities(training.predict(state, batch))
            assert want.std() > 0.01
            np.testing.assert_allclose(got[size], want, rtol=1e-5)


def test_it_is_the_same_from_a_mesh() -> None:
    state = network(None)
    spread = training.spread(state, training.data_mesh(2))
    images = np.random.default_rng(0).normal(size=(3, 4, 6, 2)).astype(np.float32)
    one, other = (
        jax.export.deserialize(bytearray(training.export_network(each, (4, 6, 2)))) for each in (state, spread)
    )
    assert other.nr_devices == 1
    np.testing.assert_array_equal(other.call(images), one.call(images))


@pytest.mark.parametrize("shape", [(7, 5), (7, 5, 3), (1, 7, 5, 2), (0, 5, 2)])
def test_an_image_that_the_network_does_not_take(shape: tuple[int, ...]) -> None:
    message = (
        f"export_network: `image_shape` is {shape}; it must be (height, width, 2), since the network's images have 2"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        training.export_network(network(None), shape)


def test_flatbuffers_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    with pytest.raises(ImportError, match=r'export_network needs flatbuffers: .* "jaxbn\[examples\]"'):
        training.export_network(network(None), (7, 5, 2))
