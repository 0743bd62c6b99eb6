"""A NaN in one place reaches only what it reaches in the reference."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxbn._testing.collector import Collector
from jaxbn._testing.cotangents import gaussian
from jaxbn._testing.gradients import Truth
from jaxbn._testing.oracle import doubled
from jaxbn._testing.report import Failure

Vectors = Sequence[jax.Array]


def check_isolation(collector: Collector, truth: Truth, seed: int) -> None:
    """In the middle of each input and of each output's cotangent."""
    problem, sides = collector.problem, truth.sides
    dy = gaussian(problem.outputs, seed, 0).arrays
    names = [*(y.name for y in problem.outputs), *(f"the cotangent of `{leaf.name}`" for leaf in problem.inputs)]
    for planted, arrays, cotangent in _poisoned(collector, dy):
        collector.progress(f"isolation, NaN in {planted}")
        got = jax.tree.leaves(jax.tree.map(doubled, sides.rule(arrays, cotangent)))
        allowed = [jax.tree.leaves(each(arrays, cotangent)) for each in (sides.plain, sides.exact)]
        for name, ours, plain, exact in zip(names, got, *allowed, strict=True):
            escaped = ~np.isfinite(ours) & np.isfinite(plain) & np.isfinite(exact)
            if np.any(escaped):
                index = tuple(int(each[0]) for each in np.nonzero(escaped))
                message = f"a NaN in {planted} reaches {int(escaped.sum())} entries of {name} that it must not reach"
                collector.failures.append(
                    Failure(
                        "isolation",
                        message,
                        argument=name,
                        index=index,
                        got=float(ours[index]),
                        want=float(exact[index]),
                    )
                )
    collector.checked.append("a NaN stays where it is")


def _poisoned(collector: Collector, dy: Vectors) -> Iterator[tuple[str, Any, Any]]:
    problem = collector.problem
    for place, leaf in enumerate(problem.inputs):
        if leaf.size:
            yield f"`{leaf.name}`", _with_nan(problem.arrays, place), dy
    for place, leaf in enumerate(problem.outputs):
        if leaf.size:
            yield f"the cotangent of {leaf.name}", problem.arrays, _with_nan(dy, place)


def _with_nan(arrays: Vectors, place: int) -> list[jax.Array]:
    poisoned = np.array(arrays[place])
    poisoned.flat[poisoned.size // 2] = np.nan
    return [jnp.asarray(poisoned) if other == place else array for other, array in enumerate(arrays)]
