"""Writes Python code that reproduces a failure, given ``fn``, ``reference`` and ``args`` of `check_custom_vjp`."""

from jaxbn.testing.problem import Problem
from jaxbn.testing.report import Failure

_NAMES = ("vmap of the pullback", "vmap", "jit", "devices")
"""Transformations whose label in a failure has details after the name. Longer names come first."""


def command(failure: Failure, seed: int) -> str | None:
    """Returns Python code that repeats the check of the failure's transformation, if there is one."""
    if failure.transformation is None:
        return None
    name = next((name for name in _NAMES if failure.transformation.startswith(name)), failure.transformation)
    return f"check_custom_vjp(fn, reference, *args, transforms={name!r}, seed={seed})"


def program(failure: Failure, problem: Problem, cotangent: str, seed: int) -> str | None:
    """Returns Python code that prints the wrong entry of the gradient. ``cotangent`` is code for the cotangent."""
    if failure.index is None:
        return command(failure, seed)
    *setup, expression = cotangent.split("\n")
    differentiated = sorted(problem.inputs_of_argument)
    parameters = ", ".join(f"a{position}" for position in differentiated)
    count = len(problem.treedef.children())
    arguments = ", ".join(f"a{p}" if p in differentiated else f"args[{p}]" for p in range(count))
    values = ", ".join(f"args[{position}]" for position in differentiated)
    index = f"[{', '.join(map(str, failure.index))}]" if failure.index else ""
    floating = "jnp.issubdtype(y.dtype, jnp.floating)"
    lines = [
        "import jax, jax.numpy as jnp, numpy as np  # fn and args are those given to check_custom_vjp",
        f"floats = lambda {parameters}: [y for y in jax.tree.leaves(fn({arguments})) if {floating}]",
        f"outputs, vjp = jax.vjp(floats, {values})",
        *setup,
        f"dy = [jnp.asarray({expression}, y.dtype) for number, y in enumerate(outputs)]",
        f"print(jax.tree.leaves(vjp(dy))[{_place_in_gradient(failure, problem)}]{index})  # wanted {failure.want:.6g}",
    ]
    return "\n".join(lines)


def _place_in_gradient(failure: Failure, problem: Problem) -> int:
    """The place of the failure's argument among the leaves of the result of ``vjp``."""
    flat_index = next(leaf.flat_index for leaf in problem.inputs if leaf.name == failure.argument)
    return sum(1 for other in range(flat_index) if problem.argument_of_leaf[other] in problem.inputs_of_argument)
