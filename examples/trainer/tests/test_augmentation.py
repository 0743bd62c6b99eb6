"""Augmentation against what NumPy makes of the same images, and where it must not depend on anything but the key."""

import functools
import re
from itertools import islice, product

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec as P
from scipy import stats

from examples.trainer import data, training
from examples.trainer.training import Augmentation, loop
from examples.trainer.training.step import Augment
from jaxbn import cnn

pytestmark = pytest.mark.usefixtures("quickly_compiled")

KEY = jax.random.key(7)
HEIGHT, WIDTH = 6, 9


def images(count: int, dtype: str = "float32") -> np.ndarray:
    """No pixel is like another one of its image, nor 0."""
    rng = np.random.default_rng(count)
    image = rng.permuted(np.tile(np.arange(1.0, 1 + HEIGHT * WIDTH * 2), (count, 1)), axis=1)
    return image.reshape(count, HEIGHT, WIDTH, 2).astype(dtype)


def augmented(augment: Augmentation, batch: np.ndarray, key: jax.Array = KEY) -> np.ndarray:
    got = jax.jit(augment)(key, jnp.asarray(batch))
    assert (got.shape, got.dtype) == (batch.shape, batch.dtype)
    return np.asarray(got)


def moved(batch: np.ndarray, down: int, right: int, flip: bool) -> np.ndarray:
    """Every image turned left to right, then moved, in plain slices."""
    result = np.zeros_like(batch)
    for i, j in product(range(HEIGHT), range(WIDTH)):
        if 0 <= i - down < HEIGHT and 0 <= j - right < WIDTH:
            column = j - right
            result[:, i, j] = batch[:, i - down, WIDTH - 1 - column if flip else column]
    return result


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize(("shift", "flip"), [(2, False), (0, True), (1, True)])
def test_shift_and_flip_are_the_allowed_ones_each_as_likely(shift: int, flip: bool, dtype: str) -> None:
    batch = images(1200).astype(jnp.dtype(dtype))
    got = augmented(Augmentation(shift=shift, flip=flip), batch)
    distances = range(-shift, shift + 1)
    allowed = list(product(distances, distances, (False, True) if flip else (False,)))
    same = np.stack([(got == moved(batch, *how)).all((1, 2, 3)) for how in allowed])
    assert (same.sum(0) == 1).all()
    assert stats.chisquare(same.sum(1)).pvalue > 0.01


def between(array: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The array at fractional places along its first axis: linear between two entries, constant beyond the last."""
    places = places.clip(0, len(array) - 1)
    before = np.floor(places).astype(int)
    after = np.minimum(before + 1, len(array) - 1)
    share = (places - before).reshape(-1, *(1,) * (array.ndim - 1))
    return (1 - share) * array[before] + share * array[after]


def part_of(numbers: np.ndarray) -> tuple[float, float]:
    """Where a part starts, and its share of the whole, by the rows' (or columns') numbers that are seen in it."""
    size = len(numbers)
    share, first = np.polyfit(np.arange(1, size - 1), numbers[1:-1], 1)  # the outermost may be the rim
    return first + 0.5 - share / 2, share


def test_a_crop_is_a_part_stretched_over_the_whole() -> None:
    """Two channels are the rows' and the columns' own numbers, which tell the part; the third must be that part."""
    height, width, least = 12, 17, 0.6
    batch = np.empty((300, height, width, 3))
    batch[..., 0], batch[..., 1] = np.arange(height).reshape(-1, 1), np.arange(width)
    batch[..., 2] = np.random.default_rng(1).normal(size=batch.shape[:3])
    uniform = []
    for image, after in zip(batch[..., 2], augmented(Augmentation(crop=least), batch), strict=True):
        part = image
        for size, numbers in ((height, after[:, 0, 0]), (width, after[0, :, 1])):
            start, share = part_of(numbers)
            part = between(part, (np.arange(size) + 0.5) * share + start - 0.5).swapaxes(0, 1)
            uniform.append(((share - least) / (1 - least), start / (size * (1 - share))))
        np.testing.assert_allclose(after[..., 2], part, atol=1e-4)
    shares, starts = np.reshape(uniform, (-1, 2, 2)).transpose(2, 1, 0)
    for drawn in (*shares, *starts):
        assert stats.kstest(drawn, "uniform").pvalue > 0.01
    for one, other in (shares, starts, (shares[0], starts[0])):
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.2


def test_a_crop_in_bfloat16_is_that_of_float32_rounded() -> None:
    batch = np.random.default_rng(2).normal(size=(5, HEIGHT, WIDTH, 2)).astype(jnp.bfloat16)
    augment = Augmentation(crop=0.5)
    wide = augmented(augment, batch.astype(np.float32))
    np.testing.assert_array_equal(augmented(augment, batch), wide.astype(jnp.bfloat16))


@pytest.mark.parametrize("augment", [Augmentation(), Augmentation(crop=1)])
def test_what_is_not_asked_for_changes_no_bit(augment: Augmentation) -> None:
    batch = np.array([np.nan, -0.0, np.inf, 1e-45, 0.1, -1.0], np.float32).reshape(1, 2, 3, 1)
    assert augmented(augment, batch).tobytes() == batch.tobytes()


@pytest.mark.parametrize("change", [{"shift": 1}, {"flip": True}, {"crop": 0.5}])
def test_other_keys_make_other_images(change: dict) -> None:
    augment, batch = Augmentation(**change), images(8)
    got = augmented(augment, batch)
    np.testing.assert_array_equal(got, augmented(Augmentation(**change), batch))
    assert (got != augmented(augment, batch, jax.random.key(8))).any()


def test_devices_each_make_their_part_of_the_same_images() -> None:
    """Without a word between them."""
    augment, batch = jax.jit(Augmentation(shift=2, flip=True, crop=0.7)), images(16)
    mesh = training.data_mesh(8)
    key = jax.device_put(KEY, NamedSharding(mesh, P()))
    spread = jax.device_put(batch, NamedSharding(mesh, P("data")))
    got = augment(key, spread)
    assert got.sharding == spread.sharding
    np.testing.assert_array_equal(got, augment(KEY, batch))
    program = augment.lower(key, spread).compile().as_text() or ""
    assert not re.search(r" (all-|collective-|reduce-scatter)", program)


def test_a_run_that_is_resumed_learns_from_the_same_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "make_train_step", functools.cache(training.make_train_step))
    labels = np.arange(24, dtype=np.int32) % 3
    dataset = data.Dataset(images(24), labels, images(4), labels[:4], classes=3)
    optimizer = optax.sgd(0.01)

    def trained(state: training.TrainState, augment: Augment, steps: int | None = None) -> training.TrainState:
        run = training.fit(state, dataset, optimizer, epochs=2, batch_size=8, augment=augment)
        *_, (state, _) = islice(run, steps)
        jax.effects_barrier()
        return state

    def start() -> training.TrainState:
        config = cnn.CNNConfig(classes=3, in_channels=2, features=(4,))
        return training.create_train_state(jax.random.split(KEY), config, optimizer)

    def augment(key: jax.Array, batch: jax.Array) -> jax.Array:
        jax.debug.callback(lambda key: seen.append(tuple(np.asarray(key).tolist())), jax.random.key_data(key))
        return Augmentation(shift=2, flip=True)(key, batch)

    seen: list[tuple[int, ...]] = []
    whole = trained(start(), augment).params
    assert len(set(seen)) == len(seen) == 6 * 2  # steps and members
    jax.tree.map(np.testing.assert_array_equal, trained(trained(start(), augment, 4), augment).params, whole)
    assert sorted(seen[12:]) == sorted(seen[:12])
    unchanged = trained(start(), lambda _, batch: batch).params
    assert (np.asarray(unchanged.dense.kernel) != np.asarray(whole.dense.kernel)).any((1, 2)).all()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"shift": -1}, ValueError, "Augmentation: `shift` is -1; it must be at least 0"),
        ({"shift": 1.5}, TypeError, "Augmentation: `shift` is 1.5; it must be an int"),
        ({"flip": 1}, TypeError, "Augmentation: `flip` is 1; it must be True or False"),
        ({"crop": 0.0}, ValueError, "Augmentation: `crop` is 0.0; it must be above 0 and at most 1"),
        ({"crop": 1.01}, ValueError, "Augmentation: `crop` is 1.01; it must be above 0 and at most 1"),
        ({"crop": float("nan")}, ValueError, "Augmentation: `crop` is nan; it must be above 0 and at most 1"),
        ({"crop": "0.5"}, TypeError, "Augmentation: `crop` is '0.5'; it must be a number"),
    ],
)
def test_arguments_that_make_no_sense(arguments: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        Augmentation(**arguments)


@pytest.mark.parametrize(
    ("shape", "dtype", "error", "message"),
    [
        ((4, 6, 9), "float32", ValueError, "`images` has shape (4, 6, 9); it must be (batch, height, width, channels)"),
        ((4, 3, 9, 1), "float32", ValueError, "`shift` is 3, `images` has shape (4, 3, 9, 1); the shift must be less"),
        ((4, 6, 9, 1), "uint8", TypeError, "`images` has dtype uint8; it must be one of float64"),
    ],
)
def test_images_that_cannot_be_shifted(shape: tuple, dtype: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        Augmentation(shift=3)(KEY, jnp.ones(shape, dtype))


def test_equal_ones_are_one_to_a_compiler() -> None:
    assert hash(Augmentation(2, True, 0.5)) == hash(Augmentation(shift=2, flip=True, crop=0.5))
    assert Augmentation(2) == Augmentation(shift=2) != Augmentation(1)
