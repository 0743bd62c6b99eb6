"""Programs exported with symbolic sizes, called at three sizes each."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import export, lax

import jaxbn
from tests.support.compare import assert_close, cotangents, pullback

Function = Callable[..., Any]


class Case(NamedTuple):
    """An operation on arrays of shapes with symbols; the last, ``where``, is a mask if it is given."""

    operation: str
    shapes: tuple[str, ...]
    options: Mapping[str, Any] = MappingProxyType({})
    where: str | None = None
    sizes: tuple[dict[str, int], ...] = (
        {"b": 2, "d": 5, "h": 6, "w": 7},
        {"b": 3, "d": 4, "h": 9, "w": 4},
        {"b": 37, "d": 6, "h": 5, "w": 12},
    )

    def function(self, module: Any) -> Function:
        operation = getattr(module, self.operation)

        def floats(*arrays: jax.Array) -> list[jax.Array]:
            masked = {} if self.where is None else {"where": arrays[-1]}
            outputs = operation(*arrays[: len(self.shapes)], **masked, **self.options)
            return [y for y in jax.tree.leaves(outputs) if jnp.issubdtype(y.dtype, jnp.floating)]

        return floats


def symbolic(*shapes: str, dtype: Any = jnp.float64) -> list[jax.ShapeDtypeStruct]:
    scope = export.SymbolicScope()
    return [jax.ShapeDtypeStruct(export.symbolic_shape(shape, scope=scope), dtype) for shape in shapes]


def concrete(structs: Any, sizes: dict[str, int]) -> list[jax.Array]:
    """Normal entries, and masks that keep two thirds."""
    rng = np.random.default_rng(0)

    def drawn(struct: jax.ShapeDtypeStruct) -> jax.Array:
        entries = rng.normal(size=[eval(str(size), {}, sizes) for size in struct.shape])
        return jnp.asarray(entries > -0.4 if struct.dtype == bool else entries, struct.dtype)

    return [drawn(struct) for struct in structs]


def export_pullback(function: Function, structs: Any) -> export.Exported:
    """Value and gradients with cotangents as arguments, whose shapes are expressions of the symbols."""
    dy = jax.eval_shape(function, *structs)
    return export.export(jax.jit(partial(pullback, function)))(structs, dy)


def but_for_masks(tree: Any) -> list[jax.Array]:
    """The value and the gradients, of which a mask has none."""
    return [leaf for leaf in jax.tree.leaves(tree) if leaf.dtype != jax.dtypes.float0]


def assert_right_at(case: Case, number: int) -> None:
    """At the sizes of that number, which are the seed too."""
    shapes = case.shapes if case.where is None else (*case.shapes, case.where)
    structs = symbolic(*shapes)
    if case.where is not None:
        structs[-1] = structs[-1].update(dtype=bool)
    exported = export_pullback(case.function(jaxbn), structs)
    plain = case.function(lax if case.operation == "conv_general_dilated" else jaxbn.reference)
    arrays = concrete(structs, case.sizes[number])
    dy = cotangents(jax.eval_shape(plain, *arrays), number)
    want = jax.jit(partial(pullback, plain))(arrays, dy)
    assert_close(but_for_masks(exported.call(arrays, dy)), but_for_masks(want), 1e-11)
