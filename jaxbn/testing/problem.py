"""Describes one check: the function with a rule, the reference without a rule, and the arrays to differentiate.

The other modules see functions that map a list of floating-point arrays to a list of floating-point arrays, so that
none of them has to handle pytrees, integers or static arguments.
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
    """The type of one array, which is an input or an output."""

    name: str  # as Python would write it: x, params['kernel'], output[1]
    flat_index: int  # among all leaves of the arguments, or of the outputs
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def eps(self) -> float:
        return float(jnp.finfo(self.dtype).eps)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))


def unchanged(leaf: Any) -> Any:
    return leaf


@dataclass(frozen=True)
class Problem:
    """``fn``, ``reference``, and the arguments at which they are compared."""

    fn: Function
    reference: Function
    flat: tuple[Any, ...]  # the leaves of all arguments
    treedef: Any
    inputs: tuple[Leaf, ...]  # the floating-point arrays that are differentiated
    integer_inputs: tuple[Leaf, ...]  # the other arrays in the arguments that are differentiated
    inputs_of_argument: dict[int, list[int]]  # from an argument's position to its places in `inputs`
    argument_of_leaf: tuple[int, ...]  # for each entry of `flat`, the position of its argument
    outputs: tuple[Leaf, ...] = ()  # the floating-point ones
    has_other_outputs: bool = False

    @property
    def arrays(self) -> list[jax.Array]:
        return [self.flat[leaf.flat_index] for leaf in self.inputs]

    @property
    def input_size(self) -> int:
        return sum(leaf.size for leaf in self.inputs)

    @property
    def output_size(self) -> int:
        return sum(leaf.size for leaf in self.outputs)

    @property
    def result_names(self) -> list[str]:
        """Names of a pullback's results: the outputs, then the cotangents of the inputs."""
        return [*(y.name for y in self.outputs), *(f"the cotangent of `{leaf.name}`" for leaf in self.inputs)]

    def arguments_with(self, leaves: Sequence[Leaf], arrays: Sequence[Any], constant: Function = unchanged) -> Any:
        """The arguments with ``arrays`` in place of ``leaves``, and ``constant`` applied to every other leaf."""
        flat = [constant(leaf) for leaf in self.flat]
        for leaf, array in zip(leaves, arrays, strict=True):
            flat[leaf.flat_index] = array
        return jax.tree.unflatten(self.treedef, flat)

    def flattened(self, function: Function, constant: Function = unchanged) -> Function:
        """Returns ``function`` as a function from a list of the inputs to a list of the floating-point outputs."""
        on_inputs = self.on_inputs(function, constant)
        return lambda arrays: floating_leaves(on_inputs(arrays))

    def on_inputs(self, function: Function, constant: Function = unchanged) -> Function:
        """Returns ``function`` as a function of a list of the inputs, with the same result."""
        return lambda arrays: function(*self.arguments_with(self.inputs, arrays, constant))


def is_array(leaf: Any) -> bool:
    return isinstance(leaf, (jax.Array, np.ndarray, np.generic))


def is_floating(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)


def floating_leaves(tree: Any) -> list[Any]:
    return [leaf for leaf in jax.tree.leaves(tree) if is_floating(leaf)]


def make_problem(fn: Function, reference: Function, args: Sequence[Any], argnums: Any) -> Problem:
    """Reads the arguments. Raises ``TypeError`` or ``ValueError`` if they cannot be checked."""
    for name, function in (("fn", fn), ("reference", reference)):
        if not callable(function):
            raise TypeError(f"check_custom_vjp: `{name}` is {function!r}; it must be a function")
    chosen = _positions(argnums, len(args))
    paths, treedef = jax.tree_util.tree_flatten_with_path(tuple(args))
    flat: list[Any] = []
    inputs: list[Leaf] = []
    integer_inputs: list[Leaf] = []
    inputs_of_argument: dict[int, list[int]] = {}
    for flat_index, (path, value) in enumerate(paths):
        position = path[0].idx
        differentiated = position in chosen and (is_array(value) or (argnums is not None and isinstance(value, float)))
        if not differentiated:
            flat.append(jnp.asarray(value) if is_array(value) else value)
            continue
        name = _name(fn, position) + jax.tree_util.keystr(path[1:])
        value = jnp.asarray(value)
        flat.append(value)
        _require_real_numbers(name, value)
        leaf = Leaf(name, flat_index, value.shape, value.dtype)
        if is_floating(value):
            inputs_of_argument.setdefault(position, []).append(len(inputs))
            inputs.append(leaf)
        else:
            integer_inputs.append(leaf)
    if not inputs:
        raise ValueError(
            f"check_custom_vjp: no argument has a floating-point array; argnums={argnums!r}, of {len(args)} arguments"
            f" {[_describe(value) for _, value in paths]}; give one to differentiate"
        )
    argument_of_leaf = tuple(path[0].idx for path, _ in paths)
    return Problem(
        fn,
        reference,
        tuple(flat),
        treedef,
        tuple(inputs),
        tuple(integer_inputs),
        inputs_of_argument,
        argument_of_leaf,
    )


def _positions(argnums: Any, count: int) -> tuple[int, ...]:
    if argnums is None:
        return tuple(range(count))
    numbers = argnums if isinstance(argnums, (tuple, list)) else (argnums,)
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, (int, np.integer)):
            raise TypeError(f"check_custom_vjp: `argnums` is {argnums!r}; it must be None, an int or several ints")
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


def _require_real_numbers(name: str, value: jax.Array) -> None:
    if jnp.issubdtype(value.dtype, jnp.complexfloating):
        raise TypeError(
            f"check_custom_vjp: `{name}` has dtype {value.dtype}; it must be real: "
            "give the real and the imaginary part as two arguments"
        )
    nan = np.isnan(np.asarray(value).astype(np.float64)) if is_floating(value) else np.False_
    if np.any(nan):
        index = tuple(int(indices[0]) for indices in np.nonzero(nan))
        raise ValueError(
            f"check_custom_vjp: `{name}` is NaN at {index}; gradients cannot be compared at NaN. "
            "Give arguments without NaN: the check inserts NaNs itself to see how they spread"
        )


def _describe(value: Any) -> str:
    return f"{value.dtype}{list(value.shape)}" if hasattr(value, "dtype") else type(value).__name__
