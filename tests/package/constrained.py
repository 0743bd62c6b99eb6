"""`constrain_beta` without the state that it does not have."""

from typing import Any

import jax
import numpy as np
import optax

from jaxbn.optim import constrain_beta

K = 0.7


def apply(params: Any, updates: Any) -> Any:
    return optax.apply_updates(params, updates)


def constrain(updates: Any, params: Any, k: float = K, **options: Any) -> Any:
    return constrain_beta(k, **options).update(updates, optax.EmptyState(), params)[0]


def bits(tree: Any) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]
