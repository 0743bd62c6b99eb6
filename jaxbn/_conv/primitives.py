"""Bilinear maps as JAX primitives: the one file that touches JAX's interpreters.

A primitive takes two operands and computes a bilinear map of them for every member of a family. Its operands and its
result carry the family's axes in front, in this order:

    left     (*both, *left_only, ...)
    right    (*both, *right_only, ...)
    result   (*both, *left_only, *right_only, ...)

So ``vmap`` only moves an axis to its place and counts it, however deep it is nested; how a family is computed is
decided where the program is lowered, when the platform is known. A transposition is the same bookkeeping: an axis that
the cotangent shares with the other operand is one of both, and what the transposed operand lacks is summed over.
"""

import sys
from collections.abc import Callable
from functools import cache, partial, reduce
from itertools import starmap
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jaxbn._conv.arithmetic import like_operand
from jaxbn._sharding import vary_alike

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


class Members(NamedTuple):
    """How many leading axes belong to both operands, to the left one alone and to the right one alone."""

    both: int = 0
    left: int = 0
    right: int = 0


def define_bilinear(name: str, plain: Callable[..., jax.Array], compute: Callable[..., jax.Array]) -> Primitive:
    """A primitive without derivatives yet.

    ``plain(left, right, **params)`` is one member's map in ``jax.lax``'s own words: it is traced, never run, so that
    the result's shape, dtype, sharding and varying axes are what JAX makes of them. ``compute(platform, on_one_device,
    shape, members, left, right, **params)`` computes the whole family for a platform, or for any that is not known if
    that is ``None``.
    """
    primitive = _Bilinear(name)
    primitive.def_impl(partial(_run_alone, primitive))
    primitive.def_abstract_eval(partial(_abstract_evaluation, plain))
    batching.fancy_primitive_batchers[primitive] = partial(_batch, primitive)
    mlir.register_lowering(primitive, partial(_lower, partial(compute, None)))
    for platform in PLATFORMS:
        mlir.register_lowering(primitive, partial(_lower, partial(compute, platform)), platform=platform)
    return primitive


class _Bilinear(Primitive):
    """Gives `jax.experimental.jet` its rule when it is bound, if somebody has imported that module by then."""

    def bind(self, *operands: Any, **params: Any) -> Any:
        jet = sys.modules.get("jax.experimental.jet")
        if jet is not None:
            jet.jet_rules.setdefault(self, partial(_taylor, self))
        return super().bind(*operands, **params)


def define_derivatives(primitive: Primitive, left: tuple[Primitive, bool], right: tuple[Primitive, bool]) -> None:
    """Each operand's transposed map, and whether the cotangent is that map's left operand."""
    ad.defbilinear(primitive, partial(_transpose_left, *left), partial(_transpose_right, *right))


def bind(primitive: Primitive, left: jax.Array, right: jax.Array, **params: Any) -> jax.Array:
    """The map of one pair of operands. Under `jax.shard_map` both are first made to vary over the same mesh axes."""
    left, right = vary_alike(left, right)
    return primitive.bind(left, right, members=Members(), **params)


def _run_alone(primitive: Primitive, left: jax.Array, right: jax.Array, **params: Any) -> jax.Array:
    with jax.disable_jit(False):  # As JAX's own primitives, which are compiled whatever the user sets.
        return _compiled(primitive, **params)(left, right)


@cache
def _compiled(primitive: Primitive, **params: Any) -> Callable[..., jax.Array]:
    return jax.jit(partial(primitive.bind, **params))


def _abstract_evaluation(
    plain: Callable[..., jax.Array], left: Any, right: Any, *, members: Members, **params: Any
) -> Any:
    family = partial(plain, **params)
    for axes, count in (((None, 0), members.right), ((0, None), members.left), ((0, 0), members.both)):
        for _ in range(count):
            family = jax.vmap(family, in_axes=axes)
    return jax.make_jaxpr(family)(left, right).out_avals[0]


def _lower(compute: Callable[..., jax.Array], context: Any, *operands: Any, members: Members, **params: Any) -> Any:
    """Lowers what ``compute`` traces to, free of explicit shardings: the program has those of the operands already."""
    bare = [ShapedArray(aval.shape, aval.dtype) for aval in context.avals_in]
    shape = context.avals_out[0].shape
    with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), ())):
        compute = partial(compute, _on_one_device(context), shape, members)
        lower = mlir.lower_fun(compute, multiple_results=False)
        return lower(context.replace(avals_in=bare), *operands, **params)


def _on_one_device(context: Any) -> bool:
    """Whether the arrays are whole, or one device's part under `jax.shard_map`, and no partitioner divides them."""
    axes = context.module_context.axis_context
    if hasattr(axes, "manual_axes"):
        return axes.manual_axes == frozenset(axes.mesh.axis_names)
    return getattr(axes, "num_devices", None) == 1


def _batch(primitive: Primitive, _: Any, operands: Any, axes: Any, *, members: Members, **params: Any) -> Any:
    (left, right), (left_axis, right_axis) = operands, axes
    both, left_only, right_only = members
    result_axis = None
    if left_axis is not None and right_axis is not None:
        left, right = jnp.moveaxis(left, left_axis, 0), jnp.moveaxis(right, right_axis, 0)
        members, result_axis = members._replace(both=both + 1), 0
    elif left_axis is not None:
        left = jnp.moveaxis(left, left_axis, both)
        members, result_axis = members._replace(left=left_only + 1), both
    elif right_axis is not None:
        right = jnp.moveaxis(right, right_axis, both)
        members, result_axis = members._replace(right=right_only + 1), both + left_only
    return primitive.bind(left, right, members=members, **params), result_axis


def _taylor(primitive: Primitive, operands: Any, series: Any, **params: Any) -> tuple[jax.Array, list[jax.Array]]:
    """The product of two polynomials in t: of each power, the sum over the pairs of coefficients that make it."""
    left, right = ([operand, *terms] for operand, terms in zip(operands, series, strict=True))
    product = partial(primitive.bind, **params)
    powers = (zip(left[: power + 1], reversed(right[: power + 1]), strict=True) for power in range(len(left)))
    first, *others = (reduce(jnp.add, starmap(product, pairs)) for pairs in powers)
    return first, others


def _transpose_left(
    primitive: Primitive,
    cotangent_first: bool,
    cotangent: Any,
    left: Any,
    right: Any,
    *,
    members: Members,
    **params: Any,
) -> jax.Array:
    both, left_only, right_only = members
    # Shared with the right operand are the axes of both and of the right alone: they go to the front.
    own = range(both, both + left_only)
    cotangent = jnp.moveaxis(cotangent, own, range(both + right_only, both + right_only + left_only))
    result = _bind_transposed(primitive, cotangent_first, cotangent, right, both + right_only, left_only, params)
    return _summed(result, both, right_only).astype(left.aval.dtype)


def _transpose_right(
    primitive: Primitive,
    cotangent_first: bool,
    cotangent: Any,
    left: Any,
    right: Any,
    *,
    members: Members,
    **params: Any,
) -> jax.Array:
    both, left_only, right_only = members
    result = _bind_transposed(primitive, cotangent_first, cotangent, left, both + left_only, right_only, params)
    return _summed(result, both, left_only).astype(right.aval.dtype)


def _summed(result: jax.Array, first: int, count: int) -> jax.Array:
    return jnp.sum(result, tuple(range(first, first + count))) if count else result


def _bind_transposed(
    primitive: Primitive,
    cotangent_first: bool,
    cotangent: Any,
    other: Any,
    shared: int,
    own: int,
    params: dict[str, Any],
) -> jax.Array:
    """The transposed map of a cotangent with ``shared`` axes in common with ``other`` and then ``own`` of its own."""
    cotangent, other = like_operand(cotangent, other)
    if cotangent_first:
        return primitive.bind(cotangent, other, members=Members(shared, own, 0), **params)
    return primitive.bind(other, cotangent, members=Members(shared, 0, own), **params)
