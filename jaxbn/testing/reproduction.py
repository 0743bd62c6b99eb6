"""A few lines of Python that show a failure, from ``fn`` and ``args`` as they were given."""

from jaxbn.testing.problem import Problem
from jaxbn.testing.report import Failure


def program(failure: Failure, problem: Problem, python: str | None, seed: int) -> str | None:
    """What prints the wrong entry; for what is no gradient's entry, the check of that alone."""
    if python is None or failure.index is None:
        return _again(failure, seed)
    *setup, expression = python.split("\n")
    chosen = sorted(problem.arguments)
    names = [f"a{position}" for position in chosen]
    arguments = ", ".join(f"a{p}" if p in chosen else f"args[{p}]" for p in range(_count(problem)))
    index = "".join(f"[{', '.join(map(str, failure.index))}]" if failure.index else "")
    floating = "jnp.issubdtype(y.dtype, jnp.floating)"
    lines = [
        "import jax, jax.numpy as jnp, numpy as np  # fn and args as they were given",
        f"floats = lambda {', '.join(names)}: [y for y in jax.tree.leaves(fn({arguments})) if {floating}]",
        f"outputs, vjp = jax.vjp(floats, {', '.join(f'args[{position}]' for position in chosen)})",
        *setup,
        f"dy = [jnp.asarray({expression}, y.dtype) for number, y in enumerate(outputs)]",
        f"print(jax.tree.leaves(vjp(dy))[{_place(failure, problem)}]{index})  # wanted {failure.want:.6g}",
    ]
    return "\n".join(lines)


def _again(failure: Failure, seed: int) -> str | None:
    if failure.transformation is None:
        return None
    name = next((name for name in _NAMES if failure.transformation.startswith(name)), failure.transformation)
    return f"check_custom_vjp(fn, reference, *args, transforms={name!r}, seed={seed})"


_NAMES = ("vmap of the pullback", "vmap", "jit", "devices")


def _place(failure: Failure, problem: Problem) -> int:
    """Among the leaves of the arguments that are differentiated."""
    names = {leaf.name: leaf.place for leaf in problem.inputs}
    place = names[str(failure.argument)]
    return sum(1 for other in range(place) if problem.positions[other] in problem.arguments)


def _count(problem: Problem) -> int:
    return len(problem.tree.children())
