"""Haiku's modules by jaxbn: the same outputs, gradients, statistics and trees as Haiku's own, in training and after."""

import importlib
import re
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import jmp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec as P

import jaxbn.haiku
from tests.support.compare import assert_close

LEARNING_RATE = 1e-3
Module = Callable[..., Any]  # of one of the two libraries, to a module
CONVOLUTIONS: dict[str, tuple[Module, tuple[int, ...]]] = {
    "ConvND": (lambda of: of.ConvND(2, 4, (3, 2), stride=(2, 1), with_bias=False), (2, 6, 5, 3)),
    "Conv1D, a padding function": (lambda of: of.Conv1D(4, 3, rate=2, padding=hk.pad.causal), (2, 7, 3)),
    "Conv1D, one pair, masked": (
        lambda of: of.Conv1D(2, 3, padding=(2, 1), mask=np.arange(18).reshape(3, 3, 2) % 5 > 0),
        (2, 7, 3),
    ),
    "Conv1D, pairs, unbatched, channels first": (
        lambda of: of.Conv1D(4, 3, stride=2, padding=[(2, 1)], data_format="NCW"),
        (3, 7),
    ),
    "Conv2D, padding functions": (
        lambda of: of.Conv2D(4, (3, 2), padding=(hk.pad.full, hk.pad.reverse_causal), name="first"),
        (2, 6, 5, 3),
    ),
    "Conv2D, groups, channels first": (
        lambda of: of.Conv2D(6, (3, 2), padding="valid", data_format="NCHW", feature_group_count=2),
        (2, 4, 6, 5),
    ),
    "Conv3D, unbatched": (lambda of: of.Conv3D(4, 2), (3, 5, 4, 2)),
    "ConvNDTranspose": (lambda of: of.ConvNDTranspose(2, 4, (3, 2), stride=(2, 1), with_bias=False), (2, 4, 5, 3)),
    "Conv1DTranspose": (lambda of: of.Conv1DTranspose(4, 3, stride=2, padding="VALID"), (2, 4, 3)),
    "Conv1DTranspose, pairs, masked": (
        lambda of: of.Conv1DTranspose(2, 3, 2, padding=[(1, 2)], mask=np.arange(18).reshape(3, 2, 3) % 5 > 0),
        (2, 4, 3),
    ),
    "Conv1DTranspose, an output shape": (lambda of: of.Conv1DTranspose(4, 3, 2, output_shape=7), (2, 4, 3)),
    "Conv2DTranspose, an output shape, channels first": (
        lambda of: of.Conv2DTranspose(4, 3, 2, output_shape=(9, 11), padding="VALID", data_format="NCHW"),
        (2, 3, 4, 5),
    ),
    "Conv3DTranspose, unbatched": (lambda of: of.Conv3DTranspose(4, 2, 2), (2, 3, 4, 2)),
    "DepthwiseConv1D": (lambda of: of.DepthwiseConv1D(2, 3, rate=2), (2, 7, 3)),
    "DepthwiseConv2D, channels first": (
        lambda of: of.DepthwiseConv2D(2, (3, 2), (1, 2), padding=[(1, 0), (2, 1)], data_format="NCHW"),
        (2, 3, 6, 5),
    ),
    "DepthwiseConv3D": (lambda of: of.DepthwiseConv3D(1, 2, padding="VALID", with_bias=False), (2, 3, 4, 3, 2)),
}
X = (4, 5, 3)
AFFINE = (True, True, 0.7)
BATCH_NORMS: dict[str, Module] = {
    "scale and offset": lambda of: of.BatchNorm(*AFFINE),
    "scale alone": lambda of: of.BatchNorm(True, False, 0.9),
    "offset alone": lambda of: of.BatchNorm(False, True, 0.9),
    "channels first": lambda of: of.BatchNorm(*AFFINE, eps=1e-2, data_format="NC...", name="norm"),
    "all axes but one": lambda of: of.BatchNorm(*AFFINE, axis=(1, 2)),
    "one axis": lambda of: of.BatchNorm(*AFFINE, axis=[0]),
    "axes from the end": lambda of: of.BatchNorm(*AFFINE, axis=(-3, -2)),
}


def draw(*shape: int, seed: int = 0, dtype: Any = jnp.float64) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def network(make: Module, of: Any, **options: Any) -> Any:
    """The module of a library; a convolution is not told whether it trains."""

    def call(x: jax.Array, is_training: bool, **arrays: jax.Array) -> jax.Array:
        module = make(of)
        mode = {"is_training": is_training} if isinstance(module, hk.BatchNorm) else {}
        return module(x, **mode, **arrays, **options)

    return hk.transform_with_state(call)


def drawn_variables(network: Any, x: jax.Array, arrays: dict[str, jax.Array]) -> Any:
    """Parameters that are drawn here, because a program that draws them takes long to compile; and the first state."""
    params, state = jax.eval_shape(lambda: network.init(jax.random.key(0), x, True, **arrays))
    params = jax.tree.map(lambda leaf: draw(*leaf.shape, dtype=leaf.dtype), params)
    return params, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), state)


def trained(network: Any, first: Any, x: jax.Array, arrays: dict[str, jax.Array]) -> Any:
    """What each of five steps computes, and the last parameters and state.

    The gradients are those of the parameters, of ``x`` and of the other ``arrays`` that the module is called with.
    """

    def step(variables: Any, number: jax.Array) -> Any:
        def loss(params: Any, x: jax.Array, arrays: dict[str, jax.Array]) -> Any:
            y, state = network.apply(params, variables[1], None, x, True, **arrays)
            return jnp.sum(draw(*y.shape, seed=7) * y) + jnp.sum(y**2), (y, state)

        gradients, (y, state) = jax.grad(loss, (0, 1, 2), has_aux=True)(variables[0], x + number, arrays)
        params = jax.tree.map(lambda old, slope: old - LEARNING_RATE * slope, variables[0], gradients[0])
        return (params, state), (y, gradients, params, state)

    return jax.lax.scan(step, first, jnp.arange(5))


def assert_is_haikus(make: Module, x: jax.Array, arrays: dict[str, jax.Array] | None = None, **options: Any) -> None:
    """Alike in training, and in inference with the other's parameters and state."""
    both = [network(make, of, **options) for of in (jaxbn.haiku, hk)]

    @jax.jit
    def outputs(first: Any, x: jax.Array, arrays: dict[str, jax.Array]) -> Any:
        (ours, _), (theirs, _) = training = [trained(each, first, x, arrays) for each in both]
        inference = [both[0].apply(*theirs, None, x, False, **arrays), both[1].apply(*ours, None, x, False, **arrays)]
        return training, inference

    arrays = arrays or {}
    first, of_haiku = (drawn_variables(each, x, arrays) for each in both)
    assert_close(first, of_haiku, 0)
    for got, want in outputs(first, x, arrays):
        assert_close(got, want, 1e-10)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_convolution_is_haikus(name: str) -> None:
    make, shape = CONVOLUTIONS[name]
    assert_is_haikus(make, draw(*shape))


@pytest.mark.parametrize("kind", [name for name in jaxbn.haiku.__all__ if "Conv" in name])
def test_a_convolution_computes_by_jaxbn(kind: str) -> None:
    spatial = 2 if "ND" in kind else int(re.findall(r"\d", kind)[0])
    first = (2,) if "ND" in kind else ()
    options = {} if "Depthwise" in kind else {"precision": jax.lax.Precision.HIGHEST}
    module = network(lambda of: getattr(of, kind)(*first, 3, 2), jaxbn.haiku, **options)

    def run(x: jax.Array) -> jax.Array:
        return module.apply(*module.init(jax.random.key(0), x, True), None, x, True)[0]

    program = str(jax.make_jaxpr(run)(draw(*(2, 4, 3, 5)[: spatial + 1], 3)))
    assert ("convolve[" in program, "conv_general_dilated[" in program) == (True, False)
    assert ("precision=Precision.HIGHEST" in program) == bool(options)


@pytest.mark.parametrize("name", BATCH_NORMS)
def test_a_batch_norm_is_haikus(name: str) -> None:
    assert_is_haikus(BATCH_NORMS[name], draw(*X))


@pytest.mark.parametrize(
    ("scale", "offset"), [((3,), (1, 1, 3)), ((4, 1, 3), (3,)), (None, (4, 5, 1)), ((4, 5, 3), ())]
)
def test_scale_and_offset_at_the_call(scale: tuple[int, ...] | None, offset: tuple[int, ...] | None) -> None:
    shapes = {"scale": scale, "offset": offset}
    arrays = {name: draw(*shape, seed=1) for name, shape in shapes.items() if shape is not None}
    assert_is_haikus(lambda of: of.BatchNorm(False, False, 0.9), draw(*X), arrays)


@pytest.mark.parametrize("scale", [2, np.ones((4, 1, 3)) * 3], ids=["a number", "one for each example"])
def test_a_scale_at_the_call_and_an_offset_of_the_module(scale: Any) -> None:
    assert_is_haikus(lambda of: of.BatchNorm(False, True, 0.9), draw(*X), scale=scale)


@pytest.mark.parametrize("x", [np.arange(12).reshape(4, 3), np.float32(2)], ids=["integers", "a number"])
def test_what_jaxbn_does_not_normalise_is_left_to_haiku(x: Any) -> None:
    outputs = []
    for of in (jaxbn.haiku, hk):
        layer = hk.transform_with_state(lambda x, of=of: of.BatchNorm(False, False, 0.9)(x, is_training=True))
        outputs.append(layer.apply(*layer.init(None, jnp.asarray(x)), None, jnp.asarray(x)))
    assert_close(outputs[0], outputs[1], 0)


def test_local_statistics_in_inference() -> None:
    ours, theirs = (network(lambda of: of.BatchNorm(*AFFINE), of, test_local_stats=True) for of in (jaxbn.haiku, hk))
    x = draw(*X)

    @jax.jit
    def outputs(x: jax.Array) -> Any:
        first = theirs.init(None, 2 * x + 1, True)
        return first[1], *(each.apply(*first, None, x, False) for each in (ours, theirs))

    state, got, want = outputs(x)
    assert_close(got, want, 1e-12)
    assert_close(got[1], state, 0)


@pytest.mark.parametrize("decay_rate", [0.9, None])
def test_the_first_parameters_and_averages_are_haikus(decay_rate: float | None) -> None:
    """The averages are those of the batch that the parameters are made with."""
    initialisers = {"scale_init": hk.initializers.Constant(2.0), "offset_init": hk.initializers.Constant(3.0)}
    (params, state), (their_params, their_state) = (
        network(lambda of, decay=decay: of.BatchNorm(True, True, decay, **initialisers), of).init(None, draw(*X), True)
        for of, decay in ((jaxbn.haiku, decay_rate), (hk, 0.9))
    )
    assert_close(params, their_params, 0)
    assert_close(averages(state), averages(their_state), 1e-12)


def test_statistics_over_two_named_axes() -> None:
    @partial(jax.jit, static_argnums=0)
    def outputs(of: Any, x: jax.Array) -> Any:
        part = network(lambda of: of.BatchNorm(*AFFINE, cross_replica_axis=["column", "row"]), of)

        def loss(params: Any, state: Any, x: jax.Array) -> Any:
            one = partial(part.apply, params, state, None, is_training=True)
            y, state = jax.vmap(jax.vmap(one, axis_name="column"), axis_name="row")(x)
            return jnp.sum(jnp.sin(y)), (y, state)

        return jax.grad(loss, (0, 2), has_aux=True)(*affine(of).init(None, x[0, 0], True), x)

    x = draw(2, 3, *X)
    assert_close(outputs(jaxbn.haiku, x), outputs(hk, x), 1e-10)


def affine(of: Any) -> Any:
    return network(lambda of: of.BatchNorm(*AFFINE), of)


@pytest.mark.parametrize("groups", [None, [[0, 1, 6, 7], [2, 3, 4, 5]]])
def test_statistics_over_eight_devices(groups: Any) -> None:
    x = draw(8, 5, 3)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices("cpu"))

    @partial(jax.jit, static_argnums=0)
    def outputs(of: Any, x: jax.Array) -> Any:
        split = {"cross_replica_axis": "data", "cross_replica_axis_index_groups": groups}
        part = network(lambda of: of.BatchNorm(*AFFINE, **split), of)

        @partial(
            jax.shard_map, mesh=mesh, in_specs=(P(), P(), P("data")), out_specs=P("data"), check_vma=groups is None
        )
        def run(params: Any, state: Any, x: jax.Array) -> Any:
            y, state = part.apply(params, state, None, x, True)
            return y, jax.tree.map(lambda leaf: leaf[None], state)

        def loss(params: Any, state: Any, x: jax.Array) -> Any:
            y, state = run(params, state, x)
            return jnp.sum(jnp.sin(y)), (y, state)

        return jax.grad(loss, (0, 2), has_aux=True)(*affine(of).init(None, x, True), x)

    assert_close(outputs(jaxbn.haiku, x), outputs(hk, x), 1e-10)


def test_pmap() -> None:
    x = draw(8, 2, 5, 3)

    def outputs(of: Any) -> Any:
        part = network(lambda of: of.BatchNorm(*AFFINE, cross_replica_axis="data"), of)

        def run(x: jax.Array) -> Any:
            return part.apply(*part.init(None, x, True), None, x, True)

        return jax.pmap(run, axis_name="data")(x)

    assert_close(outputs(jaxbn.haiku), outputs(hk), 1e-10)


MIXED: dict[str, tuple[tuple[Any, ...], tuple[int, ...]]] = {
    "BatchNorm": (AFFINE, X),
    "Conv2D": ((4, 2), (2, 6, 5, 3)),
    "Conv1DTranspose": ((4, 2, 2), X),
}


def in_training_and_inference(kind: str, of: Any, of_init: Any, of_call: Any) -> Any:
    """With parameters that are made for an input of another dtype."""
    arguments, shape = MIXED[kind]
    module = network(lambda of: getattr(of, kind)(*arguments), of)
    first = drawn_variables(module, draw(*shape, dtype=of_init), {})

    @jax.jit
    def outputs(first: Any, x: jax.Array) -> Any:
        y, state = module.apply(*first, None, x, True)
        return y, state, module.apply(first[0], state, None, x, False)

    return first, outputs(first, 300 * draw(*shape, dtype=of_call))


@pytest.mark.parametrize("of_init", [jnp.bfloat16, jnp.float32])
def test_bfloat16_comes_out_as_haikus(of_init: Any) -> None:
    """A bfloat16 has three digits."""
    outputs = [in_training_and_inference("BatchNorm", of, of_init, jnp.bfloat16) for of in (jaxbn.haiku, hk)]
    assert_close(outputs[0], outputs[1], 0.03)


@pytest.mark.parametrize("kind", MIXED)
def test_a_policy_of_mixed_precision(kind: str) -> None:
    """It belongs to one class. The variance is too large for the dtype of the output."""
    policy = jmp.get_policy("params=float32,compute=bfloat16,output=float16")
    outputs = []
    for of in (jaxbn.haiku, hk):
        with hk.mixed_precision.push_policy(getattr(of, kind), policy):
            outputs.append(in_training_and_inference(kind, of, jnp.float32, jnp.float32))
    assert_close(outputs[0], outputs[1], 0.03)


BEFORE_THE_ACTIVATION: dict[str, tuple[dict[str, Any], dict[str, tuple[int, ...]]]] = {
    "vectors": ({}, {}),
    "a scale for each example": ({}, {"scale": (4, 1, 3), "offset": (3,)}),
    "Haiku's own code": ({"axis": [0]}, {"offset": (5, 3)}),
}


@pytest.mark.parametrize("case", BEFORE_THE_ACTIVATION)
def test_a_residual_connection_and_an_activation(case: str) -> None:
    options, shapes = BEFORE_THE_ACTIVATION[case]
    plain, activated = (
        network(lambda of, more=more: of.BatchNorm(False, False, 0.9, **options, **more), of)
        for of, more in ((hk, {}), (jaxbn.haiku, {"activation": jax.nn.silu}))
    )

    def theirs(variables: Any, is_training: bool, x: jax.Array, skip: jax.Array, arrays: Any) -> jax.Array:
        return jax.nn.silu(plain.apply(*variables, None, x, is_training, **arrays)[0] + skip)

    def ours(variables: Any, is_training: bool, x: jax.Array, skip: jax.Array, arrays: Any) -> jax.Array:
        return activated.apply(*variables, None, x, is_training, residual=skip, **arrays)[0]

    @jax.jit
    def outputs(*operands: Any) -> Any:
        variables = plain.init(None, operands[0], True)

        def output(each: Any, is_training: bool) -> Any:
            y, pullback = jax.vjp(partial(each, variables, is_training), *operands)
            return y, pullback(jnp.sin(y))

        return [[output(each, is_training) for is_training in (True, False)] for each in (ours, theirs)]

    x, skip = draw(*X), draw(*X, seed=3)
    got, want = outputs(x, skip, {name: draw(*shape, seed=4) for name, shape in shapes.items()})
    assert_close(got, want, 1e-10)
    if case == "vectors":
        y, _ = jaxbn.reference.batch_norm_act(x, None, None, jax.nn.silu, residual=skip)
        assert_close(got[0][0], y, 1e-12)


def averages(state: Any) -> list[Any]:
    return [jnp.ravel(state[f"batch_norm/~/{name}_ema"]["average"]) for name in ("mean", "var")]


@pytest.mark.parametrize("unbiased", [False, True])
def test_the_average_over_all_batches(unbiased: bool) -> None:
    """Haiku's module takes it in inference."""
    plain = network(lambda of: of.BatchNorm(True, True, None, unbiased=unbiased), jaxbn.haiku)

    @jax.jit
    def outputs(batches: jax.Array) -> Any:
        params, state = plain.init(None, batches[0], True)
        for x in batches:
            _, state = plain.apply(params, state, None, x, True)
        inference = [each.apply(params, state, None, batches[0], False)[0] for each in (plain, affine(hk))]
        return averages(state), inference

    batches = draw(3, *X) * jnp.arange(1, 4).reshape(3, 1, 1, 1)
    got, (ours, theirs) = outputs(batches)
    assert_close(got, [np.mean(batches, (0, 1, 2)), np.mean(np.var(batches, (1, 2), ddof=int(unbiased)), 0)], 1e-12)
    assert_close(ours, theirs, 1e-12)


def test_the_average_over_all_batches_is_kept_in_float32() -> None:
    plain = network(lambda of: of.BatchNorm(True, True, None), jaxbn.haiku)
    _, state = jax.eval_shape(lambda: plain.init(None, draw(*X, dtype=jnp.bfloat16), True))
    assert {leaf.dtype.name for leaf in jax.tree.leaves(state)} == {"int32", "float32"}


def test_unbiased_variances_of_a_split_batch() -> None:
    part = network(lambda of: of.BatchNorm(*AFFINE, cross_replica_axis="part", unbiased=True), jaxbn.haiku)

    @jax.jit
    @partial(jax.vmap, axis_name="part", out_axes=None)
    def updated(x: jax.Array) -> Any:
        return averages(part.apply(*part.init(None, x, True), None, x, True)[1])

    x = draw(2, *X)
    assert_close(updated(x), [np.mean(x, (0, 1, 2)), np.var(x, (0, 1, 2), ddof=1)], 1e-12)


X_AND_TRAINING = (np.ones(X), True)
ERRORS = {
    "scale twice": (lambda of: of.BatchNorm(*AFFINE)(*X_AND_TRAINING, scale=1.0), "Cannot pass `scale` at call time"),
    "offset twice": (lambda of: of.BatchNorm(*AFFINE)(*X_AND_TRAINING, offset=1.0), "Cannot pass `offset` at call"),
    "no scale": (lambda of: of.BatchNorm(False, True, 0.9, scale_init=jnp.ones), "Cannot set `scale_init`"),
    "scale of a wrong length": (
        lambda of: of.BatchNorm(False, True, 0.9)(*X_AND_TRAINING, scale=np.ones(2)),
        "ncompatible shapes",
    ),
    "rank": (lambda of: of.Conv2D(4, 3)(np.ones((4, 3))), "Input to ConvND needs to have rank in [3, 4]"),
    "groups": (lambda of: of.Conv1D(4, 3, feature_group_count=2)(np.ones(X)), "Inputs channels 3 should be a multiple"),
    "mask": (lambda of: of.Conv1D(4, 3, mask=np.ones((3, 1, 1)))(np.ones(X)), "Mask needs to have the same shape"),
    "mask, transposed": (lambda of: of.Conv1DTranspose(4, 3, mask=np.ones(3))(np.ones(X)), "Mask needs to have the"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_what_haiku_refuses_is_refused(case: str) -> None:
    call, message = ERRORS[case]
    for of in (jaxbn.haiku, hk):
        with pytest.raises((ValueError, TypeError), match=re.escape(message)):
            hk.transform_with_state(lambda of=of: call(of)).init(jax.random.key(0))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: jaxbn.haiku.BatchNorm(*AFFINE, axis=[0], unbiased=True)(*X_AND_TRAINING),
            "BatchNorm: `inputs` has dtype float64 and shape (4, 5, 3), and `axis` is [0]; with `unbiased=True` they "
            "must be real floating numbers, and `axis` None or all axes but one, from 0",
        ),
        (
            lambda: jaxbn.haiku.BatchNorm(*AFFINE)(*X_AND_TRAINING, residual=jnp.ones((4, 5, 1))),
            "batch_norm_act: `residual` has shape (4, 5, 1); it must be that of `x`, (4, 5, 3)",
        ),
    ],
)
def test_errors(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        hk.transform_with_state(call).init(None)


def test_haiku_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "haiku", None)
    monkeypatch.delitem(sys.modules, "jaxbn.haiku")
    with pytest.raises(ImportError, match=r"^jaxbn\.haiku: Haiku is not installed; pip install dm-haiku$"):
        importlib.import_module("jaxbn.haiku")
