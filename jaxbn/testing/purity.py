"""The rule depends on its arguments and its residuals alone.

A forward pass that leaves something for its backward pass in a global or an attribute seems right as long as one
follows the other. It breaks where another call comes between them, where JAX traces the two apart, as `jax.checkpoint`
does, and it may depend on how often the rule was traced.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxbn.testing.collector import IMPURE, Collector
from jaxbn.testing.cotangents import gaussian
from jaxbn.testing.gradients import Truth
from jaxbn.testing.precision import Trial


def check_purity(collector: Collector, truth: Truth, pooled: Sequence[Trial], seed: int, *, jit: bool) -> None:
    """Traced once more, with the forward pass of another call before the backward pass of this one."""
    problem = collector.problem
    view = problem.view(problem.fn)

    def interrupted(arrays: Sequence[Any], others: Sequence[Any], dy: Sequence[Any]) -> Any:
        _, vjp = jax.vjp(view, list(arrays))
        jax.vjp(view, list(others))
        return vjp(list(dy))[0]

    collector.progress("purity")
    dy = gaussian(problem.outputs, seed, 0).arrays
    others = [array * jnp.asarray(0.75, array.dtype) for array in problem.arrays]
    got = (jax.jit(interrupted) if jit else interrupted)(problem.arrays, others, dy)
    trial = truth.trial("gaussian 0 with another call between the two passes", got, problem.arrays, dy)
    size = sum(y.size for y in problem.outputs)
    collector.judge([trial], problem.inputs, pooled, size=size, check="purity", cause=IMPURE)
