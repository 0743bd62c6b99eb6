"""Checks that the backward pass depends only on its residuals and its cotangent.

A forward pass may keep something for the backward pass in a global or an attribute. This works as long as the backward
pass follows directly. It fails if another call comes between them, or if JAX traces the two separately, as in
`jax.checkpoint`. The result may also depend on how often the rule was traced.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxbn.testing.collector import IMPURE, Collector
from jaxbn.testing.cotangents import gaussian
from jaxbn.testing.precision import Trial
from jaxbn.testing.scoring import Scorer


def check_purity(collector: Collector, scorer: Scorer, pooled: Sequence[Trial], seed: int, *, jit: bool) -> None:
    """Traces the rule again, with the forward pass of another call between the forward and the backward pass."""
    problem = collector.problem
    function = problem.flattened(problem.fn)

    def interrupted(arrays: Sequence[Any], other_arrays: Sequence[Any], dy: Sequence[Any]) -> Any:
        _, vjp = jax.vjp(function, list(arrays))
        jax.vjp(function, list(other_arrays))
        return vjp(list(dy))[0]

    collector.progress("purity")
    dy = gaussian(problem.outputs, seed, 0).arrays
    other_arrays = [array * jnp.asarray(0.75, array.dtype) for array in problem.arrays]
    got = (jax.jit(interrupted) if jit else interrupted)(problem.arrays, other_arrays, dy)
    trial = scorer.trial("gaussian 0 with another call between the two passes", got, problem.arrays, dy)
    collector.judge([trial], problem.inputs, pooled, size=problem.output_size, check="purity", cause=IMPURE)
