"""Checks that the function and its reference have the same outputs, and that differentiation does not change them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxbn.testing.collector import Collector
from jaxbn.testing.cotangents import zero
from jaxbn.testing.oracle import Evaluator, float64_constant, to_float64
from jaxbn.testing.precision import FLOAT64, budget, compare, float64_autodiff
from jaxbn.testing.problem import Function, Leaf, Problem, is_floating
from jaxbn.testing.report import Failure

DRAWS = 4
"""The number of times that the last bits of the arguments are changed at random."""


def with_outputs(problem: Problem) -> Problem:
    """Adds the outputs' types to the problem. Raises ``ValueError`` if the functions return different structures."""
    ours, our_tree = jax.tree_util.tree_flatten_with_path(_output_types(problem.on_inputs(problem.fn), problem.arrays))
    theirs, their_tree = jax.tree_util.tree_flatten_with_path(
        jax.eval_shape(problem.on_inputs(problem.reference), problem.arrays)
    )
    if our_tree != their_tree:
        raise ValueError(
            f"check_custom_vjp: `fn` returns {our_tree}, `reference` {their_tree}; they must have the same structure"
        )
    outputs = []
    for flat_index, ((path, ours_here), (_, theirs_here)) in enumerate(zip(ours, theirs, strict=True)):
        name = f"output{jax.tree_util.keystr(path)}"
        if (ours_here.shape, ours_here.dtype) != (theirs_here.shape, theirs_here.dtype):
            raise ValueError(
                f"check_custom_vjp: `fn` returns {name} as {ours_here.dtype}{list(ours_here.shape)}, `reference` as "
                f"{theirs_here.dtype}{list(theirs_here.shape)}; they must be the same"
            )
        if is_floating(ours_here):
            outputs.append(Leaf(name, flat_index, ours_here.shape, ours_here.dtype))
    if not outputs:
        raise ValueError("check_custom_vjp: `fn` returns no floating-point array; there is nothing to differentiate")
    return replace(problem, outputs=tuple(outputs), has_other_outputs=len(ours) > len(outputs))


def _output_types(function: Function, arrays: Sequence[Any]) -> Any:
    """Returns the outputs' types by tracing, or the outputs themselves if Python branches on values."""
    try:
        return jax.eval_shape(function, arrays)
    except jax.errors.ConcretizationTypeError:
        return function(arrays)


def check_values(problem: Problem, evaluator: Evaluator, *, jit: bool) -> tuple[list[np.ndarray], list[float]]:
    """Returns the outputs in float64 and the error allowed for each. Raises ``ValueError`` if the functions differ."""
    _require_float64(problem)
    zeros = zero(problem.outputs).arrays
    try:
        exact, plain = (evaluate(problem.arrays, zeros)[0] for evaluate in (evaluator.exact, evaluator.autodiff))
    except Exception as error:
        raise ValueError(
            "check_custom_vjp: `reference` cannot be differentiated, but its gradient is what `fn`'s is compared with; "
            f"it raises {type(error).__name__}: {error}"
        ) from error
    function = problem.flattened(problem.fn)
    ours = (jax.jit(function) if jit else function)(problem.arrays)
    plain = _with_float64_rounding(problem, evaluator, exact, plain, zeros)
    budgets = []
    changes = _changes_by_rounding(problem, evaluator, exact, zeros)
    for leaf, got, want, autodiff, change in zip(problem.outputs, ours, exact, plain, changes, strict=True):
        score = compare(leaf, to_float64(got), want, autodiff, 1.0)
        allowed = max(budget(leaf, [score], problem.input_size), 8 * change)
        if score.error > allowed:
            raise ValueError(
                f"check_custom_vjp: `fn` and `reference` differ in value, so their gradients cannot be compared: "
                f"{leaf.name}[{', '.join(map(str, score.index or ()))}] is {score.got:.6g}, the reference gives "
                f"{score.want:.6g}; off by {score.error:.3g}, rounding explains {allowed:.3g}"
            )
        budgets.append(allowed)
    if problem.has_other_outputs:
        _require_equal_integers(problem)
    return exact, budgets


def _require_float64(problem: Problem) -> None:
    with jax.enable_x64(True):
        wide = [jnp.asarray(to_float64(array)) for array in problem.arrays]
        outputs = jax.eval_shape(problem.flattened(problem.reference, float64_constant), wide)
    if any(y.dtype != np.float64 for y in outputs):
        raise ValueError(
            "check_custom_vjp: `reference` returns narrower arrays than float64 when its arguments are float64; "
            "it must compute in its arguments' dtype, because its float64 result is what `fn` is compared with"
        )


def _changes_by_rounding(
    problem: Problem, evaluator: Evaluator, exact: Sequence[np.ndarray], zeros: Any
) -> list[float]:
    """The largest change of each output when the last bits of the arguments change.

    The value of a sum whose terms cancel is uncertain by this much. A gradient does not need this, because other
    cotangents show how large its terms are.
    """
    generator = np.random.default_rng(0)
    largest = [0.0] * len(exact)
    for _ in range(DRAWS):
        outputs = evaluator.exact([_neighbours(array, generator) for array in problem.arrays], zeros)[0]
        with np.errstate(invalid="ignore"):  # infinity minus infinity
            changes = [np.abs(changed - y) for changed, y in zip(outputs, exact, strict=True)]
        largest = [
            max(before, np.max(change[np.isfinite(change)], initial=0.0))
            for before, change in zip(largest, changes, strict=True)
        ]
    return largest


def _neighbours(array: Any, generator: np.random.Generator) -> np.ndarray:
    """Replaces every finite entry by the next number above or below, at random."""
    array = np.asarray(array)
    infinity = np.asarray(np.inf, array.dtype)
    up = generator.random(array.shape) < 0.5
    return np.where(np.isfinite(array), np.nextafter(array, np.where(up, infinity, -infinity)), array)


def _with_float64_rounding(
    problem: Problem, evaluator: Evaluator, exact: Any, plain: Any, zeros: Any
) -> list[np.ndarray]:
    """The reference's outputs, with an estimate of the rounding in those that are float64."""
    if not any(leaf.dtype == FLOAT64 for leaf in problem.outputs):
        return plain
    float32, truth = (result[0] for result in evaluator.in_float32(problem.arrays, zeros))
    return [
        float64_autodiff(want, narrow, true) if leaf.dtype == FLOAT64 else unchanged
        for leaf, want, narrow, true, unchanged in zip(problem.outputs, exact, float32, truth, plain, strict=True)
    ]


def _require_equal_integers(problem: Problem) -> None:
    both = (problem.on_inputs(function)(problem.arrays) for function in (problem.fn, problem.reference))
    for (path, got), (_, want) in zip(*map(jax.tree_util.tree_leaves_with_path, both), strict=True):
        if not is_floating(got) and not np.array_equal(np.asarray(got), np.asarray(want)):
            name = f"output{jax.tree_util.keystr(path)}"
            raise ValueError(f"check_custom_vjp: `fn` and `reference` differ in {name}: {got} and {want}")


def check_values_under_differentiation(
    collector: Collector, outputs: Sequence[Any], exact: Sequence[np.ndarray], budgets: Sequence[float]
) -> None:
    """Checks that the rule's forward pass, which computes the outputs again, returns the same values."""
    for leaf, got, want, allowed in zip(collector.problem.outputs, outputs, exact, budgets, strict=True):
        score = compare(leaf, to_float64(got), want, np.where(np.isfinite(want), want, 0.0), 1.0)
        if score.error > allowed:
            collector.failures.append(
                Failure(
                    "value",
                    f"{leaf.name} has another value under differentiation than without",
                    output=leaf.name,
                    index=score.index,
                    got=score.got,
                    want=score.want,
                    error=score.error,
                    budget=allowed,
                )
            )
    collector.checked.append("values, plain and under differentiation")
