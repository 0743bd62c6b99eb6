"""The outputs: those of the function and of its reference are the same, plain and under differentiation."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxbn.testing.collector import Collector
from jaxbn.testing.cotangents import zero
from jaxbn.testing.oracle import Sides, double_constant, doubled
from jaxbn.testing.precision import FLOAT64, budget, in_float64, score
from jaxbn.testing.problem import Function, Leaf, Problem, is_floating
from jaxbn.testing.report import Failure

DRAWS = 4
"""Of the arguments' last bits."""


def with_outputs(problem: Problem) -> Problem:
    """The problem with its outputs; raises ``ValueError`` unless both functions' are of one structure."""
    ours, our_tree = jax.tree_util.tree_flatten_with_path(_outputs_of(problem.view_of_all(problem.fn), problem.arrays))
    theirs, their_tree = jax.tree_util.tree_flatten_with_path(
        jax.eval_shape(problem.view_of_all(problem.reference), problem.arrays)
    )
    if our_tree != their_tree:
        raise ValueError(
            f"check_custom_vjp: `fn` returns {our_tree}, `reference` {their_tree}; they must be of one structure"
        )
    outputs = []
    for place, ((path, mine), (_, other)) in enumerate(zip(ours, theirs, strict=True)):
        name = f"output{jax.tree_util.keystr(path)}"
        if (mine.shape, mine.dtype) != (other.shape, other.dtype):
            raise ValueError(
                f"check_custom_vjp: `fn` returns {name} as {mine.dtype}{list(mine.shape)}, `reference` as "
                f"{other.dtype}{list(other.shape)}; they must be the same"
            )
        if is_floating(mine):
            outputs.append(Leaf(name, place, mine.shape, mine.dtype))
    if not outputs:
        raise ValueError("check_custom_vjp: `fn` returns no floating-point array; there is nothing to differentiate")
    return replace(problem, outputs=tuple(outputs), outputs_beside=len(ours) > len(outputs))


def _outputs_of(function: Function, arrays: Sequence[Any]) -> Any:
    """Traced, or computed where Python decides on values."""
    try:
        return jax.eval_shape(function, arrays)
    except jax.errors.ConcretizationTypeError:
        return function(arrays)


def check_values(problem: Problem, sides: Sides, *, jit: bool) -> tuple[list[np.ndarray], list[float]]:
    """The outputs in float64 and what each may differ by; raises ``ValueError`` where the two functions differ."""
    _require_float64(problem)
    zeros = zero(problem.outputs).arrays
    try:
        exact, plain = (side(problem.arrays, zeros)[0] for side in (sides.exact, sides.plain))
    except Exception as error:
        raise ValueError(
            "check_custom_vjp: `reference` cannot be differentiated, as the truth must be; "
            f"it raises {type(error).__name__}: {error}"
        ) from error
    view = problem.view(problem.fn)
    ours = (jax.jit(view) if jit else view)(problem.arrays)
    plain = _float64_rounding(problem, sides, exact, plain, zeros)
    budgets = []
    size = sum(leaf.size for leaf in problem.inputs)
    moved = _moved_by_rounding(problem, sides, exact, zeros)
    for leaf, got, want, autodiff, change in zip(problem.outputs, ours, exact, plain, moved, strict=True):
        found = score(leaf, doubled(got), want, autodiff, 1.0)
        allowed = max(budget(leaf, [found], size), 8 * change)
        if found.error > allowed:
            raise ValueError(
                f"check_custom_vjp: `fn` and `reference` differ in value, so their gradients cannot be compared: "
                f"{leaf.name}[{', '.join(map(str, found.index or ()))}] is {found.got:.6g}, the reference gives "
                f"{found.want:.6g}; off by {found.error:.3g}, rounding explains {allowed:.3g}"
            )
        budgets.append(allowed)
    if problem.outputs_beside:
        _require_equal_integers(problem)
    return exact, budgets


def _require_float64(problem: Problem) -> None:
    with jax.enable_x64(True):
        wide = [jnp.asarray(doubled(array)) for array in problem.arrays]
        outputs = jax.eval_shape(problem.view(problem.reference, double_constant), wide)
    if any(y.dtype != np.float64 for y in outputs):
        raise ValueError(
            "check_custom_vjp: `reference` returns narrower arrays than float64 when its arguments are float64; "
            "it must compute in its arguments' dtype, so that it can be the truth"
        )


def _moved_by_rounding(problem: Problem, sides: Sides, exact: Sequence[np.ndarray], zeros: Any) -> list[float]:
    """How far each output moves when the arguments' last bits do: a sum that cancels is no more certain than that.

    Of a gradient many cotangents tell how large its terms are. Of a value there is one.
    """
    generator = np.random.default_rng(0)
    moved = [0.0] * len(exact)
    for _ in range(DRAWS):
        outputs = sides.exact([_nudged(array, generator) for array in problem.arrays], zeros)[0]
        with np.errstate(invalid="ignore"):  # infinity less infinity
            changes = [np.abs(there - here) for there, here in zip(outputs, exact, strict=True)]
        moved = [
            max(most, np.max(each[np.isfinite(each)], initial=0.0)) for most, each in zip(moved, changes, strict=True)
        ]
    return moved


def _nudged(array: Any, generator: np.random.Generator) -> np.ndarray:
    """Every finite entry's neighbour above or below."""
    array = np.asarray(array)
    infinity = np.asarray(np.inf, array.dtype)
    up = generator.random(array.shape) < 0.5
    return np.where(np.isfinite(array), np.nextafter(array, np.where(up, infinity, -infinity)), array)


def _float64_rounding(problem: Problem, sides: Sides, exact: Any, plain: Any, zeros: Any) -> list[np.ndarray]:
    if not any(leaf.dtype == FLOAT64 for leaf in problem.outputs):
        return plain
    narrow, truth = (result[0] for result in sides.rounding(problem.arrays, zeros))
    return [
        in_float64(want, low, true) if leaf.dtype == FLOAT64 else same
        for leaf, want, low, true, same in zip(problem.outputs, exact, narrow, truth, plain, strict=True)
    ]


def _require_equal_integers(problem: Problem) -> None:
    both = (problem.view_of_all(function)(problem.arrays) for function in (problem.fn, problem.reference))
    ours, theirs = map(jax.tree_util.tree_leaves_with_path, both)
    for (path, mine), (_, other) in zip(ours, theirs, strict=True):
        if not is_floating(mine) and not np.array_equal(np.asarray(mine), np.asarray(other)):
            name = f"output{jax.tree_util.keystr(path)}"
            raise ValueError(f"check_custom_vjp: `fn` and `reference` differ in {name}: {mine} and {other}")


def check_values_under_differentiation(
    collector: Collector, outputs: Sequence[Any], exact: Sequence[np.ndarray], budgets: Sequence[float]
) -> None:
    """A rule computes its function a second time, for the backward pass; it must come to the same."""
    problem = collector.problem
    for leaf, got, want, allowed in zip(problem.outputs, outputs, exact, budgets, strict=True):
        found = score(leaf, doubled(got), want, np.where(np.isfinite(want), want, 0.0), 1.0)
        if found.error > allowed:
            collector.failures.append(
                Failure(
                    "value",
                    f"{leaf.name} is another under differentiation than without",
                    output=leaf.name,
                    index=found.index,
                    got=found.got,
                    want=found.want,
                    error=found.error,
                    budget=allowed,
                )
            )
    collector.checked.append("values, plain and under differentiation")
