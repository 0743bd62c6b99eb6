"""What is checked: a function with a rule, the same without, and the arrays that both are differentiated in.

Everything else here sees functions of a list of floating-point arrays that give a list of floating-point arrays.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Function = Callable[..., Any]


class Leaf(NamedTuple):
    """An array that is differentiated, or that comes out."""

    name: str  # as Python would write it: x, params['kernel'], output[1]
    place: int  # among all leaves
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def eps(self) -> float:
        return float(jnp.finfo(self.dtype).eps)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))


@dataclass(frozen=True)
class Problem:
    """``fn`` against ``reference`` at ``args``."""

    fn: Function
    reference: Function
    flat: tuple[Any, ...]  # the leaves of all arguments
    tree: Any
    inputs: tuple[Leaf, ...]
    integers: tuple[Leaf, ...]  # arrays beside the inputs, in the arguments that are differentiated
    arguments: dict[int, list[int]]  # for each argument that is differentiated, by position, which inputs are its
    positions: tuple[int, ...]  # of each leaf, which argument it is of
    outputs: tuple[Leaf, ...] = ()  # the floating-point ones
    outputs_beside: bool = False  # whether there are others

    @property
    def arrays(self) -> list[jax.Array]:
        return [self.flat[leaf.place] for leaf in self.inputs]

    def arguments_with(self, arrays: Sequence[Any], constant: Function = lambda leaf: leaf) -> Any:
        """The arguments with other arrays in the inputs' places, and ``constant`` of what is in the others."""
        flat = [constant(leaf) for leaf in self.flat]
        for leaf, array in zip(self.inputs, arrays, strict=True):
            flat[leaf.place] = array
        return jax.tree.unflatten(self.tree, flat)

    def view(self, function: Function, constant: Function = lambda leaf: leaf) -> Function:
        """``function`` as one of the inputs alone; what is no floating-point output is left out."""

        whole = self.view_of_all(function, constant)
        return lambda arrays: [leaf for leaf in jax.tree.leaves(whole(arrays)) if is_floating(leaf)]

    def view_of_all(self, function: Function, constant: Function = lambda leaf: leaf) -> Function:
        """``function`` as one of the inputs alone."""
        return lambda arrays: function(*self.arguments_with(arrays, constant))


def is_array(leaf: Any) -> bool:
    return isinstance(leaf, (jax.Array, np.ndarray, np.generic))


def is_floating(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)


def problem_of(fn: Function, reference: Function, args: Sequence[Any], argnums: Any) -> Problem:
    """Reads the arguments; raises ``TypeError`` or ``ValueError`` where they cannot be checked."""
    for name, function in (("fn", fn), ("reference", reference)):
        if not callable(function):
            raise TypeError(f"check_custom_vjp: `{name}` is {function!r}; it must be a function")
    chosen = _positions(argnums, len(args))
    paths, tree = jax.tree_util.tree_flatten_with_path(tuple(args))
    flat: list[Any] = []
    inputs: list[Leaf] = []
    integers: list[Leaf] = []
    arguments: dict[int, list[int]] = {}
    for place, (path, value) in enumerate(paths):
        position = path[0].idx
        name = _name(fn, position) + jax.tree_util.keystr(path[1:])
        differentiated = position in chosen and (is_array(value) or (argnums is not None and isinstance(value, float)))
        if not differentiated:
            flat.append(jnp.asarray(value) if is_array(value) else value)
            continue
        value = jnp.asarray(value)
        flat.append(value)
        _require_real(name, value)
        leaf = Leaf(name, place, value.shape, value.dtype)
        if is_floating(value):
            arguments.setdefault(position, []).append(len(inputs))
            inputs.append(leaf)
        else:
            integers.append(leaf)
    if not inputs:
        raise ValueError(
            f"check_custom_vjp: no argument has a floating-point array; argnums={argnums!r}, of {len(args)} arguments"
            f" {[_described(value) for _, value in paths]}; give one to differentiate in"
        )
    positions = tuple(path[0].idx for path, _ in paths)
    return Problem(fn, reference, tuple(flat), tree, tuple(inputs), tuple(integers), arguments, positions)


def _positions(argnums: Any, count: int) -> tuple[int, ...]:
    if argnums is None:
        return tuple(range(count))
    numbers = argnums if isinstance(argnums, (tuple, list)) else (argnums,)
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, (int, np.integer)):
            raise TypeError(f"check_custom_vjp: `argnums` is {argnums!r}; it must be None, an int or several")
        if not -count <= number < count:
            raise ValueError(f"check_custom_vjp: `argnums` is {argnums!r}; there are {count} arguments")
    return tuple(int(number) % count for number in numbers)


def _name(fn: Function, position: int) -> str:
    try:
        parameters = list(inspect.signature(fn).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    positional = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    return positional[position].name if position < len(positional) else f"args[{position}]"


def _require_real(name: str, value: jax.Array) -> None:
    if jnp.issubdtype(value.dtype, jnp.complexfloating):
        raise TypeError(
            f"check_custom_vjp: `{name}` has dtype {value.dtype}; it must be real: "
            "give the real and the imaginary part as two arguments"
        )
    nan = np.isnan(np.asarray(value).astype(np.float64)) if is_floating(value) else np.False_
    if np.any(nan):
        place = tuple(int(index[0]) for index in np.nonzero(nan))
        raise ValueError(
            f"check_custom_vjp: `{name}` is NaN at {place}; nothing can be told from NaN. "
            "The check of isolation plants one of its own"
        )


def _described(value: Any) -> str:
    return f"{value.dtype}{list(value.shape)}" if hasattr(value, "dtype") else type(value).__name__
