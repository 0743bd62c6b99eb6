"""Which images each step learns from, and reading them ahead of it."""

from collections.abc import Iterator
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float32, Int32, Key

from ..data import Dataset
from .devices import own_part
from .state import over_members

Batch = tuple[Float32[np.ndarray, "*members batch height width channels"], Int32[np.ndarray, "*members batch"]]


def read_batches(
    dataset: Dataset, key: Key[Array, "*members"], batch_size: int, first: int, last: int, mesh: Mesh | None
) -> Iterator[Batch]:
    """This process's part of each batch from step `first` to `last`, read by threads a few steps ahead.

    A batch is a function of the key and its step alone. So a run is resumed by beginning at another step, and all
    processes read parts of one batch without a word between them.
    """
    try:
        import grain
    except ImportError as error:
        raise ImportError('fit needs grain: python -m pip install "jaxbn[examples]"') from error

    count = len(dataset.x_train)
    # A copy of the key on this process's own device: the threads must not run anything that other devices wait for.
    key = jax.random.wrap_key_data(jnp.asarray(np.asarray(jax.random.key_data(key))), impl=jax.random.key_impl(key))
    order = lru_cache(2)(lambda epoch: np.asarray(_order(key, epoch, count)))

    def read(step: int) -> Batch:
        epoch, batch = divmod(step, count // batch_size)
        rows = own_part(order(epoch)[..., batch * batch_size : (batch + 1) * batch_size], mesh)
        return dataset.x_train[rows], dataset.y_train[rows]

    ahead = grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)
    return iter(grain.MapDataset.range(first, last).map(read).to_iter_dataset(ahead))


@partial(jax.jit, static_argnums=2)
def _order(key: Key[Array, "*members"], epoch: int, count: int) -> Int32[Array, "*members count"]:
    """The order in which an epoch takes the training images."""

    def order(key):
        return jax.random.permutation(jax.random.fold_in(key, epoch), jnp.arange(count, dtype=jnp.int32))

    return over_members(order, key.ndim)(key)
