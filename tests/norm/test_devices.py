"""Batch norm whose batch is split over devices by an axis name: statistics and gradients are the whole batch's."""

import re
from collections.abc import Callable
from functools import cache, partial
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, PartitionSpec as P

import jaxbn
from tests.support.compare import assert_close, cotangents, jitted_pullback, true_pullback
from tests.support.sample import in_turn

BATCH, CHANNELS = 16, 3
SHAPE = (BATCH, 5, 2, CHANNELS)
MASKS = {
    "no mask": None,
    "uneven": np.random.default_rng(1).random((BATCH, 5, 1, CHANNELS)) < np.linspace(0, 1, BATCH)[:, None, None, None],
    "none on the first": np.broadcast_to((np.arange(BATCH) >= 8)[:, None, None, None], (BATCH, 1, 1, 1)),
    "none in a channel": np.broadcast_to(np.arange(CHANNELS) != 1, (BATCH, 1, 1, CHANNELS)),
}
Loss = Callable[..., jax.Array]


def arrays() -> list[jax.Array]:
    generator = np.random.default_rng(0)
    return [jnp.asarray(generator.normal(size=shape)) for shape in (SHAPE, (CHANNELS,), (CHANNELS,))]


def curved(y: jax.Array) -> jax.Array:
    return jnp.sum(jnp.sin(y) * jnp.cos(3 * y))


def whole(where: Any, x: jax.Array, gamma: jax.Array, beta: jax.Array) -> jax.Array:
    """A loss of y and of the moments, on one device, of the reference."""
    y, moments = jaxbn.reference.batch_norm(x, gamma, beta, where=where)
    return curved(y) + curved(moments.mean) + curved(moments.var)


def mesh_of(devices: int) -> Mesh:
    return jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices("cpu")[:devices])


def spread(devices: int, check: bool, where: Any, *, groups: Any = None) -> Loss:
    """The same loss under `jax.shard_map`."""
    mesh = mesh_of(devices)
    specs = (P("data"), P(), P(), P() if where is None else P("data"))

    @partial(jax.shard_map, mesh=mesh, in_specs=specs, out_specs=P(), check_vma=check)
    def total(x: jax.Array, gamma: jax.Array, beta: jax.Array, where: jax.Array | None) -> jax.Array:
        y, moments = jaxbn.batch_norm(x, gamma, beta, where=where, axis_name="data", axis_index_groups=groups)
        of_moments = curved(moments.mean) + curved(moments.var)
        if groups is not None or not check:  # One of each device: their sum is the loss.
            return jax.lax.psum(curved(y) + of_moments * (len(groups or [0]) / devices), "data")
        return jax.lax.psum(curved(y), "data") + of_moments

    return lambda x, gamma, beta: total(x, gamma, beta, where)


def gradients(loss: Loss) -> Any:
    return jax.jit(jax.value_and_grad(loss, (0, 1, 2)))(*arrays())


@cache
def gradients_of_the_whole(mask: str) -> Any:
    return gradients(partial(whole, MASKS[mask]))


@pytest.mark.parametrize(
    ("mask", "devices_and_check"), in_turn(list(MASKS), list(product([1, 2, 4, 8], [True, False])))
)
def test_shard_map(mask: str, devices_and_check: tuple[int, bool]) -> None:
    devices, check = devices_and_check
    assert_close(gradients(spread(devices, check, MASKS[mask])), gradients_of_the_whole(mask), 1e-11)


@pytest.mark.parametrize(("check", "mask"), in_turn([True, False], ["no mask", "uneven"]))
def test_groups_of_devices(check: bool, mask: str) -> None:
    """Devices 0 and 3 are a group, 1 and 2 the other."""
    groups = [[0, 3], [2, 1]]
    where = MASKS[mask]

    def by_groups(x: jax.Array, gamma: jax.Array, beta: jax.Array) -> jax.Array:
        def members(array: Any, group: list[int]) -> Any:
            return None if array is None else jnp.concatenate([jnp.split(array, 4)[device] for device in sorted(group)])

        return sum((whole(members(where, g), members(x, g), gamma, beta) for g in groups), jnp.zeros(()))

    assert_close(gradients(spread(4, check, where, groups=groups)), gradients(by_groups), 1e-11)


def test_vmap_with_an_axis_name() -> None:
    def parts(x: jax.Array, gamma: jax.Array, beta: jax.Array) -> jax.Array:
        def part(x: jax.Array) -> jax.Array:
            y, moments = jaxbn.batch_norm(x, gamma, beta, axis_name="part")
            return curved(y) + (curved(moments.mean) + curved(moments.var)) / 4

        return jnp.sum(jax.vmap(part, axis_name="part")(x.reshape(4, -1, *x.shape[1:])))

    assert_close(gradients(parts), gradients_of_the_whole("no mask"), 1e-11)
    assert_close(second(parts), second_of_the_whole("no mask"), 1e-10)


def test_a_tuple_of_names_under_vmap() -> None:
    def parts(x: jax.Array, gamma: jax.Array, beta: jax.Array) -> jax.Array:
        def part(x: jax.Array) -> jax.Array:
            return curved(jaxbn.batch_norm(x, gamma, beta, axis_name=("row", "column"))[0])

        over_both = jax.vmap(jax.vmap(part, axis_name="column"), axis_name="row")
        return jnp.sum(over_both(x.reshape(2, 4, -1, *x.shape[1:])))

    def at_once(*arrays: jax.Array) -> jax.Array:
        return curved(jaxbn.reference.batch_norm(*arrays)[0])

    assert_close(gradients(parts), gradients(at_once), 1e-11)


@pytest.mark.parametrize(
    ("around", "operation"), in_turn(["vmap", "shard_map, checked", "shard_map"], ["batch_norm", "batch_norm_relu"])
)
def test_each_device_with_parameters_of_its_own(around: str, operation: str) -> None:
    """As in a normalisation that is conditional on the example."""
    x, *_ = arrays()
    gammas, betas = (jnp.asarray(np.random.default_rng(seed).normal(size=(4, CHANNELS))) for seed in (1, 2))
    mesh = mesh_of(4)

    def loss(module: Any, x: jax.Array, gammas: jax.Array, betas: jax.Array) -> jax.Array:
        def part(x: jax.Array, gamma: jax.Array, beta: jax.Array) -> jax.Array:
            return getattr(module, operation)(x, gamma, beta, axis_name="data")[0]

        if module is jaxbn.reference or around == "vmap":
            parts = (x.reshape(4, -1, *x.shape[1:]), gammas, betas)
            return curved(jax.vmap(part, axis_name="data")(*parts).reshape(x.shape))

        def device(x: jax.Array, gammas: jax.Array, betas: jax.Array) -> jax.Array:
            return part(x, gammas.reshape(-1), betas.reshape(-1))

        specs = (P("data"), P("data"), P("data"))
        mapped = jax.shard_map(device, mesh=mesh, in_specs=specs, out_specs=P("data"), check_vma="checked" in around)
        return curved(mapped(x, gammas, betas))

    got, want = (
        jax.jit(jax.value_and_grad(partial(loss, module), (0, 1, 2)))(x, gammas, betas)
        for module in (jaxbn, jaxbn.reference)
    )
    assert_close(got, want, 1e-11)


def second(loss: Loss) -> Any:
    """Gradients of a function of the gradients, and a Hessian's product with a vector."""

    def penalty(*arrays: jax.Array) -> jax.Array:
        return sum((jnp.sum(jnp.sin(each)) for each in jax.grad(loss, (0, 1, 2))(*arrays)), jnp.zeros(()))

    tangents = tuple(jnp.cos(array) for array in arrays())
    along = jax.jit(lambda *arrays: jax.jvp(jax.grad(loss, (0, 1, 2)), arrays, tangents)[1])(*arrays())
    return jax.jit(jax.grad(penalty, (0, 1, 2)))(*arrays()), along


@cache
def second_of_the_whole(mask: str) -> Any:
    return second(partial(whole, MASKS[mask]))


@pytest.mark.parametrize(
    ("mask", "check_and_groups"), in_turn(["no mask", "uneven"], list(product([True, False], [None, [[0, 1, 2, 3]]])))
)
def test_second_derivatives(mask: str, check_and_groups: tuple[bool, Any]) -> None:
    check, groups = check_and_groups
    assert_close(second(spread(4, check, MASKS[mask], groups=groups)), second_of_the_whole(mask), 1e-10)


@pytest.mark.parametrize("check", [True, False])
def test_moments_are_alike_on_all_devices_and_of_the_whole_batch(check: bool) -> None:
    where = MASKS["uneven"]
    operation = partial(jaxbn.batch_norm, axis_name="data")

    @partial(jax.shard_map, mesh=mesh_of(4), in_specs=P("data"), out_specs=(P("data"), P()), check_vma=check)
    def synchronised(x: jax.Array, where: jax.Array) -> Any:
        return operation(x, where=where)

    assert_close(jax.jit(synchronised)(arrays()[0], where), jaxbn.reference.batch_norm(arrays()[0], where=where), 1e-12)


@pytest.mark.parametrize("check", [True, False])
def test_one_exchange_forward_and_one_backward(check: bool) -> None:
    def collectives(function: Callable[..., Any]) -> int:
        program = jax.jit(function).lower(*arrays()).compile().as_text() or ""
        return len(re.findall(r" = [^=]*\b(?:all-gather|all-reduce|reduce-scatter|collective-permute)\(", program))

    def local(x: jax.Array, gamma: jax.Array, beta: jax.Array) -> Any:
        y, vjp, moments = jax.vjp(partial(jaxbn.batch_norm, axis_name="data"), x, gamma, beta, has_aux=True)
        return y, moments.mean, vjp(jnp.cos(y))

    out = (P("data"), P(), (P("data"), P(), P()))
    mesh = mesh_of(4)
    both = jax.shard_map(local, mesh=mesh, in_specs=(P("data"), P(), P()), out_specs=out, check_vma=check)
    forward = jax.shard_map(
        lambda x, gamma, beta: jaxbn.batch_norm(x, gamma, beta, axis_name="data")[0],
        mesh=mesh,
        in_specs=(P("data"), P(), P()),
        out_specs=P("data"),
        check_vma=check,
    )
    assert collectives(forward) == 1
    assert collectives(both) == 2


@pytest.mark.parametrize("shape", [(16, 6, 12, 3), (400, 3), (64, 20, 3), (128, 2, 2, 3)])
def test_a_sharded_jit_exchanges_sums_not_images(shape: tuple[int, ...]) -> None:
    """Of each device at most a few vectors of channels, whatever the sums are cut into."""

    def gradient(x: jax.Array) -> jax.Array:
        return jax.grad(lambda x: curved(jaxbn.batch_norm(x)[0]))(x)

    x = jax.device_put(jnp.ones(shape), jax.NamedSharding(mesh_of(4), P("data")))
    program = jax.jit(gradient).lower(x).compile().as_text() or ""
    exchanged = re.findall(r" = (.*) (?:all-gather|all-reduce|reduce-scatter|collective-permute|all-to-all)\(", program)
    assert exchanged
    for result in exchanged:
        for sizes in re.findall(r"\[([\d,]*)\]", result):
            assert np.prod([int(size) for size in sizes.split(",")]) <= 4 * CHANNELS, result


EXAMPLE_MASKS = {
    "no mask": None,
    "some": np.random.default_rng(2).random((BATCH, CHANNELS)) < 0.6,
    "whole examples": np.arange(BATCH).reshape(-1, 1) % 3 > 0,
}


def examples_under_vmap(operation: Callable[..., Any], x: jax.Array, *rest: Any, **options: Any) -> Any:
    def one(x: jax.Array, where: jax.Array | None, *rest: Any) -> Any:
        return operation(x, *rest, where=where, axis_name="b", **options)

    where = options.pop("where", None)
    mapped = jax.vmap(one, (0, None if where is None else 0, None, None), out_axes=(0, None), axis_name="b")
    return mapped(x, where, *rest)


def examples_under_shard_map(operation: Callable[..., Any], x: jax.Array, *rest: Any, **options: Any) -> Any:
    """One on each device, as a vector."""
    mesh = jax.make_mesh((BATCH // 2,), ("b",), axis_types=(AxisType.Auto,), devices=jax.devices("cpu"))
    where = options.pop("where", None)

    @partial(jax.shard_map, mesh=mesh, in_specs=(P("b"), P("b"), P(), P()), out_specs=(P("b"), P()))
    def one(x: jax.Array, where: jax.Array | None, *rest: Any) -> Any:
        return operation(x, *rest, where=where, axis_name="b", **options)

    flat = None if where is None else jnp.broadcast_to(where, x.shape).reshape(-1)
    y, moments = one(x.reshape(-1), flat, *rest)
    return y.reshape(x.shape), moments


PLACES = [(0, "vmap"), (-1, "shard_map")]  # the channels' axis, and what is around the operation


@pytest.mark.parametrize(
    ("name_and_place", "mask"),
    in_turn(list(product(["batch_norm", "batch_norm_relu"], PLACES)), list(EXAMPLE_MASKS)),
)
def test_an_example_has_channels_alone_and_the_named_axis_is_the_batch(
    name_and_place: tuple[str, tuple[int, str]], mask: str
) -> None:
    name, (axis, around) = name_and_place
    spread_out = examples_under_vmap if around == "vmap" else examples_under_shard_map
    count, where = (BATCH if around == "vmap" else BATCH // 2), EXAMPLE_MASKS[mask]
    where = None if where is None else jnp.asarray(where[:count])
    draw = np.random.default_rng(3).normal
    arrays = [jnp.asarray(draw(size=shape)) for shape in ((count, CHANNELS), (CHANNELS,), (CHANNELS,))]

    def ours(*arrays: jax.Array) -> list[jax.Array]:
        y, moments = spread_out(getattr(jaxbn, name), *arrays, axis=axis, where=where)
        return [y, moments.mean, moments.var]

    def reference(*arrays: jax.Array) -> list[jax.Array]:
        y, moments = getattr(jaxbn.reference, name)(*arrays, where=where)
        return [y, moments.mean, moments.var]

    got, want = jitted_pullback(ours), true_pullback(reference)
    for seed in range(3):
        dy = cotangents(arrays, seed)  # of y and the moments, which have their shapes
        assert_close(got(arrays, dy), want(arrays, dy), 1e-12)


def test_an_example_is_normalised_by_given_statistics() -> None:
    draw = np.random.default_rng(4).normal
    x, dy, mean, gamma, beta = (jnp.asarray(draw(size=CHANNELS)) for _ in range(5))
    var = jnp.exp(mean)
    for axis in (0, -1):
        y, pullback = jax.vjp(partial(jaxbn.batch_norm_inference, axis=axis), x, mean, var, gamma, beta)
        want, wanted_pullback = jax.vjp(jaxbn.reference.batch_norm_inference, x, mean, var, gamma, beta)
        assert_close((y, pullback(dy)), (want, wanted_pullback(dy)), 1e-12)
