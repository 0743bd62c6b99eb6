"""`constrain_beta`: the bound without tolerance, and the identity elsewhere."""

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

from jaxbn.optim import constrain_beta
from tests.package.constrained import K, apply, bits, constrain
from tests.support.sample import in_turn

pytestmark = pytest.mark.optimised
CHANNELS = 1024
OPTIMIZERS: dict[str, Callable[[], optax.GradientTransformation]] = {
    "sgd": lambda: optax.sgd(0.1),
    "momentum and weight decay": lambda: optax.chain(optax.add_decayed_weights(0.05), optax.sgd(0.1, momentum=0.9)),
    "adam": lambda: optax.adam(0.05),
    "adamw": lambda: optax.adamw(0.05, weight_decay=0.1),
}


Params = dict[str, jax.Array]


def draw(dtype: Any, *, shape: tuple[int, ...] = (CHANNELS,), seed: int = 0) -> Params:
    """A γ and a β; half of the latter start below the bound."""
    generator = np.random.default_rng(seed)
    gamma = generator.normal(size=shape)
    beta = 1.4 * np.abs(gamma) * generator.normal(size=shape)
    return {"gamma": jnp.asarray(gamma, dtype), "beta": jnp.asarray(beta, dtype)}


def gradients(params: Params, generator: np.random.Generator) -> tuple[Params, Params]:
    """Factors for a gradient that the compiler has to compute, and which pushes β down more often than up."""
    factor = {name: jnp.asarray(generator.normal(size=leaf.shape), leaf.dtype) for name, leaf in params.items()}
    return factor, {"gamma": jnp.zeros_like(params["gamma"]), "beta": jnp.full_like(params["beta"], 0.5)}


def step(optimizer: optax.GradientTransformation, params: Params, state: Any, factor: Params, offset: Params) -> Any:
    gradient = jax.tree.map(lambda factor, param, offset: factor * jnp.cos(param) + offset, factor, params, offset)
    return optimizer.update(gradient, state, params)


def whole_step(optimizer: optax.GradientTransformation, params: Params, *rest: Any) -> Any:
    updates, state = step(optimizer, params, *rest)
    return apply(params, updates), state


def applied_outside(optimizer: optax.GradientTransformation) -> Callable[..., Any]:
    compiled = jax.jit(partial(step, optimizer))

    def run(params: Params, *rest: Any) -> Any:
        updates, state = compiled(params, *rest)
        return apply(params, updates), state

    return run


WAYS: dict[str, Callable[[optax.GradientTransformation], Callable[..., Any]]] = {
    "eager": lambda optimizer: partial(whole_step, optimizer),
    "compiled": lambda optimizer: jax.jit(partial(whole_step, optimizer)),
    "compiled, but applied outside": applied_outside,
}


def bound(params: Params, k: Any = K) -> np.ndarray:
    """In β's dtype, by NumPy."""
    dtype = params["beta"].dtype
    return -(np.asarray(k, dtype) * np.abs(np.asarray(params["gamma"]).astype(dtype)))


def below(params: Params) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # a NaN is not
        return np.asarray(params["beta"]) < bound(params)


def assert_at_the_bound(params: Params, updates: Params, where: np.ndarray, dtype: Any) -> None:
    """Not below, nor above by more than the rounding of an update, of dtype ``dtype``, and of β."""
    new = apply(params, updates)
    beta, least, old = (np.asarray(each, np.float64)[where] for each in (new["beta"], bound(new), params["beta"]))
    eps = [float(jnp.finfo(each).eps) for each in (dtype, new["beta"].dtype)]
    assert np.all(beta >= least)
    assert np.all(beta - least <= eps[0] * (np.abs(old) + np.abs(least)) + eps[1] * np.abs(least))


@pytest.mark.parametrize(
    ("name_and_way", "dtype"), in_turn(list(product(OPTIMIZERS, WAYS)), [jnp.float32, jnp.bfloat16])
)
def test_the_bound_holds_after_each_step(name_and_way: tuple[str, str], dtype: Any) -> None:
    """Without tolerance, while γ changes too; and a good part of the β are at the bound."""
    name, way = name_and_way
    optimizer = optax.chain(OPTIMIZERS[name](), constrain_beta(K))
    run, params, generator = WAYS[way](optimizer), draw(dtype), np.random.default_rng(1)
    state = optimizer.init(params)
    for _ in range(8):
        with jax.numpy_dtype_promotion("standard"):  # for Adam
            before, (params, state) = params, run(params, state, *gradients(params, generator))
        assert np.mean(np.asarray(params["gamma"]) != np.asarray(before["gamma"])) > 0.5
        assert not np.any(below(params))
        assert np.mean(np.asarray(params["beta"]) == bound(params)) > 0.05


@pytest.mark.parametrize("dtypes", [(jnp.bfloat16, jnp.float32), (jnp.float32, jnp.bfloat16)], ids=str)
def test_parameters_and_updates_of_two_dtypes(dtypes: tuple[Any, Any]) -> None:
    params = draw(dtypes[0])
    with jax.numpy_dtype_promotion("standard"):
        for seed in range(1, 5):
            free = draw(dtypes[1], seed=seed)
            updates = constrain(free, params)
            assert updates["beta"].dtype == dtypes[1]
            assert_at_the_bound(params, updates, below(apply(params, free)), dtypes[1])
            params = apply(params, updates)
            assert not np.any(below(params))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float64], ids=["float32", "bfloat16", "float64"])
def test_updates_within_the_bound_pass_bit_by_bit(dtype: Any) -> None:
    """Among them those that lead exactly to it, both zeros, infinities and NaNs, and all that is no batch norm's."""
    params = {"norm": draw(dtype), "dense": jnp.ones(3, dtype)}
    gamma = params["norm"]["gamma"]
    updates = {"norm": draw(dtype, seed=2), "dense": jnp.array([-0.0, jnp.nan, -jnp.inf], dtype)}
    special = jnp.array([0.0, -0.0, jnp.inf, jnp.nan], dtype)
    updates["norm"]["beta"] = jnp.concatenate([special, updates["norm"]["beta"][4:]])
    params["norm"]["beta"] = jnp.abs(params["norm"]["beta"])
    got = jax.jit(constrain)(updates, params)
    assert bits(got["dense"]) == bits(updates["dense"])
    assert bits(got["norm"]["gamma"]) == bits(updates["norm"]["gamma"])

    free = ~below(apply(params["norm"], updates["norm"]))
    assert 0.05 < np.mean(~free) < 0.95
    got_beta, update = (np.asarray(tree["norm"]["beta"]) for tree in (got, updates))
    assert bits(got_beta[free]) == bits(update[free])
    assert_at_the_bound(params["norm"], got["norm"], ~free, dtype)

    exactly = {"gamma": jnp.zeros_like(gamma), "beta": -jnp.asarray(K, dtype) * jnp.abs(gamma)}
    assert bits(constrain(exactly, {"gamma": gamma, "beta": jnp.zeros_like(gamma)})) == bits(exactly)
    updates["norm"]["gamma"] = -gamma  # infinity times zero is no bound either
    assert bits(jax.jit(partial(constrain, k=np.inf))(updates, params)) == bits(updates)


def test_a_gamma_of_zero_an_endless_update_and_numbers_next_to_nothing() -> None:
    tiny = float(jnp.finfo(jnp.float32).tiny)
    params = {"gamma": jnp.array([0, 1, 1.5 * tiny], jnp.float32), "beta": jnp.array([1, 1, -1.9 * tiny], jnp.float32)}
    updates = {"gamma": jnp.zeros(3, jnp.float32), "beta": jnp.array([-3, -jnp.inf, 0], jnp.float32)}
    got = jax.jit(apply)(params, jax.jit(partial(constrain, k=1.0))(updates, params))["beta"]
    assert got.tolist() == [0.0, -1.0, 0.0]


def test_under_vmap_over_k_and_members() -> None:
    """As a sweep does: each member is what it is alone, also where k is no constraint."""
    ks = jnp.array([0.3, 1.0, jnp.inf], jnp.float32)
    params, factors = draw(jnp.float32, shape=(3, CHANNELS)), gradients(draw(jnp.float32), np.random.default_rng(1))

    def member(k: Any, params: Params) -> Params:
        optimizer = optax.chain(optax.sgd(0.1, momentum=0.9), constrain_beta(k))
        state = optimizer.init(params)
        for _ in range(2):
            params, state = whole_step(optimizer, params, state, *factors)
        return params

    got = jax.jit(jax.vmap(member))(ks, params)
    for index, k in enumerate(ks.tolist()):
        own = jax.tree.map(lambda leaf, index=index: leaf[index], got)
        alone = jax.jit(partial(member, k))(jax.tree.map(lambda leaf, index=index: leaf[index], params))
        np.testing.assert_array_max_ulp(np.asarray(own["beta"]), np.asarray(alone["beta"]), 64)
        assert np.all(np.asarray(own["beta"]) >= bound(own, k))


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
def test_parameters_spread_over_devices(kind: AxisType) -> None:
    mesh = jax.make_mesh((4,), ("model",), axis_types=(kind,), devices=jax.devices("cpu")[:4])
    sharding = NamedSharding(mesh, P("model"))
    params, updates = (jax.device_put(draw(jnp.float32, seed=seed), sharding) for seed in (0, 1))
    want = jax.jit(constrain)(draw(jnp.float32, seed=1), draw(jnp.float32))
    with jax.set_mesh(mesh):
        got = jax.jit(constrain)(updates, params)
    assert bits(got) == bits(want)
    assert got["beta"].sharding.spec == P("model")
