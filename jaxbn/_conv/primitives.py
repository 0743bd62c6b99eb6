"""Bilinear maps as JAX primitives: the one file that touches JAX's interpreters.

A bilinear map takes two operands, each of which may have batch axes in front, added by `jax.vmap`. The primitive keeps
them in this order:

    left     (*both, *left_only, ...)
    right    (*both, *right_only, ...)
    result   (*both, *left_only, *right_only, ...)

So `jax.vmap` only moves an axis to its place and counts it, however deeply it is nested. How the batched map is
computed is decided when the program is lowered, because only then is the platform known. Transposing a map is the same
bookkeeping: a batch axis that the cotangent shares with the other operand belongs to both, and the result is summed
over the batch axes that the transposed operand does not have.

Under `jax.vmap` over images with one kernel, the new axis is merged into the images' axis instead. The transposed map
is then one kernel gradient of all images, and not a sum of kernel gradients, one for each entry of the new axis.
"""

import sys
from collections.abc import Callable, Hashable
from functools import cache, partial, reduce
from itertools import starmap
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jaxbn._conv.spec import in_one_dtype
from jaxbn._sharding import sharding, vary_alike

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


class BatchAxes(NamedTuple):
    """The numbers of leading axes of both operands, of the left operand alone and of the right operand alone."""

    both: int = 0
    left: int = 0
    right: int = 0


class Transpose(NamedTuple):
    """The map that computes a cotangent, and whether the cotangent of the result is its left operand."""

    map: "BilinearMap"
    cotangent_first: bool


class BilinearMap(Primitive):
    """A bilinear map of two arrays as a JAX primitive; call it as ``map(spec, left, right)``.

    ``plain(spec, left, right)`` is the map without batch axes in operations of `jax.lax`. It is traced and never run,
    so that the result has the shape, the dtype, the sharding and the varying axes that JAX gives it.

    ``compute(left, right, spec=, batch_axes=, platform=, on_one_device=, native=, shape=)`` computes the batched map.
    The platform is ``None`` if it is not one of `PLATFORMS`.

    ``of_images`` says that the first axis of the left operand and of the result counts images that are independent.
    """

    def __init__(
        self, name: str, plain: Callable[..., jax.Array], compute: Callable[..., jax.Array], *, of_images: bool
    ) -> None:
        super().__init__(name)
        self.of_images = of_images
        self.def_impl(partial(_run_eagerly, self))
        self.def_abstract_eval(partial(_evaluate_abstractly, plain))
        batching.fancy_primitive_batchers[self] = partial(_batch, self)
        for platform in (None, *PLATFORMS):
            mlir.register_lowering(self, partial(_lower, partial(compute, platform=platform)), platform=platform)

    def define_transposes(self, left: Transpose, right: Transpose) -> None:
        """Define the derivatives: the transposed maps with respect to the left and to the right operand."""
        ad.defbilinear(self, partial(_transpose_left, left), partial(_transpose_right, right))

    def __call__(self, spec: Hashable, left: jax.Array, right: jax.Array) -> jax.Array:
        # Under `jax.shard_map` the operands of a primitive must vary over the same mesh axes.
        return self.bind(*vary_alike(left, right), spec=spec, batch_axes=BatchAxes())

    def bind(self, *operands: Any, **params: Any) -> Any:
        # The rule for `jax.experimental.jet` is added once the user has imported it, so that jaxbn does not import it.
        jet = sys.modules.get("jax.experimental.jet")
        if jet is not None:
            jet.jet_rules.setdefault(self, partial(_taylor, self))
        return super().bind(*operands, **params)


def _run_eagerly(map_: BilinearMap, left: jax.Array, right: jax.Array, **params: Any) -> jax.Array:
    with jax.disable_jit(False):  # JAX's own primitives are compiled under `jax.disable_jit` as well.
        return _compiled(map_, **params)(left, right)


@cache
def _compiled(map_: BilinearMap, **params: Any) -> Callable[..., jax.Array]:
    return jax.jit(partial(map_.bind, **params))


def _evaluate_abstractly(
    plain: Callable[..., jax.Array], left: Any, right: Any, *, spec: Hashable, batch_axes: BatchAxes
) -> Any:
    batched = partial(plain, spec)
    for axes, count in (((None, 0), batch_axes.right), ((0, None), batch_axes.left), ((0, 0), batch_axes.both)):
        for _ in range(count):
            batched = jax.vmap(batched, in_axes=axes)
    return jax.make_jaxpr(batched)(left, right).out_avals[0]


def _lower(compute: Callable[..., jax.Array], context: Any, *operands: Any, **params: Any) -> Any:
    """Lower ``compute`` without explicit shardings: the operands in the program have them already."""
    bare = [ShapedArray(aval.shape, aval.dtype) for aval in context.avals_in]
    result = context.avals_out[0]
    is_real = not jnp.issubdtype(result.dtype, jnp.complexfloating)
    with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), ())):
        on_one_device = _is_on_one_device(context)
        native = is_real and on_one_device and _is_for_this_cpu(context)
        compute = partial(compute, on_one_device=on_one_device, native=native, shape=result.shape)
        lower = mlir.lower_fun(compute, multiple_results=False)
        return lower(context.replace(avals_in=bare), *operands, **params)


def _is_on_one_device(context: Any) -> bool:
    """Whether no partitioner will divide the arrays: they are whole, or one device's part under `jax.shard_map`."""
    axes = context.module_context.axis_context
    if hasattr(axes, "manual_axes"):
        return axes.manual_axes == frozenset(axes.mesh.axis_names)
    return getattr(axes, "num_devices", None) == 1


def _is_for_this_cpu(context: Any) -> bool:
    """Whether the program will run on the CPU of this process. An exported one may run where jaxbn is not installed."""
    module = context.module_context
    return tuple(module.platforms) == ("cpu",) and not module.lowering_parameters.for_export


def _batch(map_: BilinearMap, _: Any, operands: Any, axes: Any, *, spec: Hashable, batch_axes: BatchAxes) -> Any:
    (left, right), (left_axis, right_axis) = operands, axes
    both, left_only, right_only = batch_axes
    result_axis = None
    if left_axis is not None and right_axis is not None:
        left, right = jnp.moveaxis(left, left_axis, 0), jnp.moveaxis(right, right_axis, 0)
        batch_axes, result_axis = batch_axes._replace(both=both + 1), 0
    elif left_axis is not None and map_.of_images and not any(sharding(left)):
        return _batch_images(map_, jnp.moveaxis(left, left_axis, 0), right, spec=spec, batch_axes=batch_axes)
    elif left_axis is not None:
        left = jnp.moveaxis(left, left_axis, both)
        batch_axes, result_axis = batch_axes._replace(left=left_only + 1), both
    elif right_axis is not None:
        right = jnp.moveaxis(right, right_axis, both)
        batch_axes, result_axis = batch_axes._replace(right=right_only + 1), both + left_only
    return map_.bind(left, right, spec=spec, batch_axes=batch_axes), result_axis


def _batch_images(
    map_: BilinearMap, left: jax.Array, right: jax.Array, *, spec: Hashable, batch_axes: BatchAxes
) -> tuple[jax.Array, int]:
    """Merge a new first axis of ``left`` into the images' axis, and return the result and the place of its new axis."""
    axis, result_axis = batch_axes.both + batch_axes.left, sum(batch_axes)
    left = jnp.moveaxis(left, 0, axis)
    before, (count, images), after = left.shape[:axis], left.shape[axis : axis + 2], left.shape[axis + 2 :]
    left = left.reshape(*before, count * images, *after)
    result = map_.bind(left, right, spec=spec, batch_axes=batch_axes)
    before, after = result.shape[:result_axis], result.shape[result_axis + 1 :]
    return result.reshape(*before, count, images, *after), result_axis


def _taylor(map_: BilinearMap, operands: Any, series: Any, **params: Any) -> tuple[jax.Array, list[jax.Array]]:
    """Multiply two polynomials: for each power, sum the products of the pairs of coefficients that make it."""
    left, right = ([operand, *terms] for operand, terms in zip(operands, series, strict=True))
    product = partial(map_.bind, **params)
    powers = (zip(left[: power + 1], reversed(right[: power + 1]), strict=True) for power in range(len(left)))
    first, *others = (reduce(jnp.add, starmap(product, pairs)) for pairs in powers)
    return first, others


def _transpose_left(
    transpose: Transpose, cotangent: Any, left: Any, right: Any, *, spec: Hashable, batch_axes: BatchAxes
) -> jax.Array:
    both, left_only, right_only = batch_axes
    # Move the batch axes that the cotangent shares with the right operand to the front.
    unshared = range(both, both + left_only)
    cotangent = jnp.moveaxis(cotangent, unshared, range(both + right_only, both + right_only + left_only))
    result = _transposed(transpose, spec, cotangent, right, shared=both + right_only, unshared=left_only)
    return _sum_axes(result, both, right_only).astype(left.aval.dtype)


def _transpose_right(
    transpose: Transpose, cotangent: Any, left: Any, right: Any, *, spec: Hashable, batch_axes: BatchAxes
) -> jax.Array:
    both, left_only, right_only = batch_axes
    result = _transposed(transpose, spec, cotangent, left, shared=both + left_only, unshared=right_only)
    return _sum_axes(result, both, left_only).astype(right.aval.dtype)


def _sum_axes(result: jax.Array, first: int, count: int) -> jax.Array:
    return jnp.sum(result, tuple(range(first, first + count))) if count else result


def _transposed(
    transpose: Transpose, spec: Hashable, cotangent: Any, other: Any, *, shared: int, unshared: int
) -> jax.Array:
    """Apply the map to a cotangent with ``shared`` batch axes, which ``other`` has too, then ``unshared`` ones."""
    cotangent, other = in_one_dtype(cotangent, other)
    if transpose.cotangent_first:
        return transpose.map.bind(cotangent, other, spec=spec, batch_axes=BatchAxes(shared, unshared, 0))
    return transpose.map.bind(other, cotangent, spec=spec, batch_axes=BatchAxes(shared, 0, unshared))
