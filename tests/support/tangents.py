"""``forward_mode=True``: tangents are those of `jax.jvp` of the reference, and every nesting of both modes works."""

from collections.abc import Sequence
from functools import partial
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

import jaxbn
from jaxbn.testing import check_custom_vjp, saved_bytes
from tests.support import meshes
from tests.support.cases import Case
from tests.support.compare import Function, assert_close, jitted
from tests.support.transformations import stacked

Arrays = Sequence[jax.Array]

MEMBERS = 3


def tangents(arrays: Arrays, seed: int) -> list[jax.Array]:
    generator = np.random.default_rng(2000 + seed)
    return [jnp.asarray(generator.normal(size=array.shape), array.dtype) for array in arrays]


def jvp(function: Function, arrays: Arrays, vectors: Arrays) -> Any:
    return jax.jvp(function, list(arrays), list(vectors))


def assert_tangents_are_autodiffs(cases: Sequence[Case]) -> None:
    arrays = [case.arrays() for case in cases]
    vectors = [tangents(each, 0) for each in arrays]

    @jax.jit
    def compute(arrays: list[Arrays], vectors: list[Arrays]) -> list[Any]:
        return [
            [jvp(each, *given) for each in both_functions(case)]
            for case, *given in zip(cases, arrays, vectors, strict=True)
        ]

    for case, ((y, dy), (y_wanted, dy_wanted)) in zip(cases, compute(arrays, vectors), strict=True):
        assert_close(y, y_wanted, 1e-12, [f"{case}, output {index}" for index in range(len(y))])
        assert_close(dy, dy_wanted, case.tolerance, [f"{case}, tangent of output {index}" for index in range(len(y))])


def both_functions(case: Case) -> tuple[Function, Function]:
    return case.in_forward_mode.function(jaxbn), case.function(jaxbn.reference)


def assert_right_under_transformations(case: Case) -> None:
    """Forward mode is the reference's, and reverse mode through the tangent rule is that of the rule for it."""
    sets = [case.arrays(seed) for seed in range(MEMBERS)]
    vectors = [tangents(sets[0], seed) for seed in range(MEMBERS)]
    ours, plain = both_functions(case)
    rule = case.function(jaxbn)

    @jax.jit
    def compute(sets: list[Arrays], vectors: list[Arrays]) -> Any:
        forward = [transformations(each, sets, vectors) for each in (ours, plain)]
        return forward, [scanned_pullback(each, sets) for each in (ours, rule)]

    (got, want), (through_tangents, by_rule) = compute(sets, vectors)
    for name in want:
        leaves = len(jax.tree.leaves(want[name]))
        assert_close(got[name], want[name], 10 * case.tolerance, [f"{name}, leaf {leaf}" for leaf in range(leaves)])
    assert_close(through_tangents, by_rule, case.tolerance)


def transformations(function: Function, sets: Sequence[Arrays], vectors: Sequence[Arrays]) -> dict[str, Any]:
    arrays, one, two = sets[0], vectors[0], vectors[1]
    all_arrays, all_vectors = stacked(sets), stacked(vectors)
    along = partial(jvp, function)

    def tangent(*arrays: jax.Array) -> Any:
        return along(arrays, one)[1]

    linear = jax.linearize(function, *arrays)[1]
    dy, back = jax.vjp(tangent, *arrays)
    results = {
        "vmap of jvp": jax.vmap(along)(all_arrays, all_vectors),
        "linearize": [linear(*vectors) for vectors in (one, two)],
        "vmap of linearize": jax.vmap(lambda vectors: linear(*vectors))(all_vectors),
        "jvp of scan of checkpoint": jvp(partial(scanned, function), all_arrays, all_vectors),
        "jvp of jvp": jvp(tangent, arrays, two),
        "vjp of jvp": back([jnp.cos(each) for each in dy]),
    }
    for position in range(len(arrays)):
        # The tangents of the other arguments are known to be zero.

        def of_one(argument: jax.Array, position: int = position) -> Any:
            return function(*arrays[:position], argument, *arrays[position + 1 :])

        along_one = [all_arrays[position]], [all_vectors[position]]
        results[f"jvp of vmap over argument {position}"] = jvp(jax.vmap(of_one), *along_one)
    return results


def scanned(function: Function, *arrays: jax.Array) -> Any:
    return jax.lax.scan(lambda carry, arrays: (carry, jax.checkpoint(function)(*arrays)), None, arrays)[1]


def scanned_pullback(function: Function, sets: Sequence[Arrays]) -> Any:
    y, vjp = jax.vjp(partial(scanned, function), *stacked(sets))
    return y, vjp([jnp.cos(each) for each in y])


def assert_all_orders_agree(case: Case) -> None:
    """The Hessian of a nonlinear function of the outputs, by forward and reverse mode in all four orders."""
    arrays = case.arrays()
    varied = tuple(place for place, name in enumerate(case.names) if place < 2 or name == "residual")

    @jax.jit
    def compute(*arrays: jax.Array) -> Any:
        ours, plain = (partial(meshes.loss, each) for each in both_functions(case))
        orders = product((jax.jacfwd, jax.jacrev), repeat=2)
        hessians = [outer(inner(ours, varied), varied)(*arrays) for outer, inner in orders]
        return hessians, jax.hessian(plain, varied)(*arrays)

    hessians, want = compute(*arrays)
    # An entry that is zero in exact arithmetic is rounding, so all are measured by the largest.
    largest = max(np.max(np.abs(leaf), initial=0.0) for leaf in jax.tree.leaves(want))
    for hessian in hessians:
        for ours, theirs in zip(jax.tree.leaves(hessian), jax.tree.leaves(want), strict=True):
            assert np.max(np.abs(ours - theirs), initial=0.0) <= 10 * case.tolerance * largest


def assert_tangents_right_under_shard_map(case: Case, check: bool) -> None:
    arrays = meshes.spread(case)
    vectors = tangents(arrays, 0)
    mesh = jax.make_mesh(
        (meshes.DEVICES,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices("cpu")[: meshes.DEVICES]
    )

    @partial(jax.shard_map, mesh=mesh, in_specs=meshes.specs(case), out_specs=P(), check_vma=check)
    def total(*arrays: jax.Array) -> jax.Array:
        return jax.lax.psum(meshes.loss(case.in_forward_mode.function(jaxbn), *arrays), "data")

    got = jax.jit(partial(jvp, total))(arrays, vectors)
    want = jax.jit(partial(jvp, partial(meshes.by_parts, case)))(arrays, vectors)
    assert_close(got, want, 1e-11)


def assert_tangents_right_under_a_sharded_jit(case: Case, kind: AxisType) -> None:
    arrays = meshes.spread(case)
    vectors = tangents(arrays, 0)
    mesh = jax.make_mesh((meshes.DEVICES,), ("data",), axis_types=(kind,), devices=jax.devices("cpu")[: meshes.DEVICES])
    want = jax.jit(partial(jvp, partial(meshes.loss, case.function(jaxbn.reference))))(arrays, vectors)
    with jax.set_mesh(mesh):
        placed = [
            [
                jax.device_put(array, NamedSharding(mesh, spec))
                for array, spec in zip(each, meshes.specs(case), strict=True)
            ]
            for each in (arrays, vectors)
        ]
        got = jax.jit(partial(jvp, partial(meshes.loss, case.in_forward_mode.function(jaxbn))))(*placed)
    assert_close(jax.tree.map(np.asarray, got), want, 1e-11)


def assert_precise(case: Case, dtype: Any) -> None:
    """Value, tangents, and gradients through the tangent rule, by the checker's precision rule."""
    ours, plain = both_functions(case)
    families = ("gaussian", "constant")
    report = check_custom_vjp(ours, jitted(plain), *case.arrays(dtype=dtype), transforms=("jvp",), cotangents=families)
    assert "jvp" in report.checked


def assert_saves_as_few_bytes(case: Case) -> None:
    """Also if one argument alone is differentiated: the tangents of the others are zeros, which are not saved."""
    arrays = case.arrays()
    for position in (None, *range(len(arrays))):
        varied = arrays if position is None else [arrays[position]]

        def of_varied(function: Function, *varied: jax.Array, position: int | None = position) -> Any:
            return function(*varied if position is None else [*arrays[:position], *varied, *arrays[position + 1 :]])

        ours, rule = (
            saved_bytes(partial(of_varied, each.function(jaxbn)), *varied) for each in (case.in_forward_mode, case)
        )
        assert ours.added <= rule.added
        assert ours.inputs <= rule.inputs
