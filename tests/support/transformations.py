"""The rules under JAX's transformations, against the reference under none, or under the same for second derivatives.

The transformations of one kind are one program for a case, which compiles faster than a program for each of them.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import jaxbn
from tests.support.cases import Case
from tests.support.compare import Function, assert_close, cotangents, pullback, true_pullback

MEMBERS = 3


class Run(NamedTuple):
    """A function of arguments, and what it must give."""

    function: Function
    arguments: tuple[Any, ...]
    want: Any
    factor: float = 1.0  # of the case's tolerance


Transformations = Callable[[Case], Iterator[tuple[str, Run]]]


def assert_right_without_compiling(case: Case) -> None:
    arrays, dy = case.arrays(), cotangents(outputs_of(case), 0)
    assert_close(pullback(case.function(jaxbn), arrays, dy), expected(case, arrays, dy), case.tolerance)


def assert_right_under(transformations: Transformations, case: Case) -> None:
    runs = dict(transformations(case))
    functions = {name: run.function for name, run in runs.items()}
    results = jax.jit(lambda arguments: {name: functions[name](*each) for name, each in arguments.items()})(
        {name: run.arguments for name, run in runs.items()}
    )
    for name, run in runs.items():
        leaves = len(jax.tree.leaves(run.want))
        labels = [f"{name}, leaf {leaf}" for leaf in range(leaves)]
        assert_close(results[name], run.want, run.factor * case.tolerance, labels)


def batched(case: Case) -> Iterator[tuple[str, Run]]:
    """`vmap` over all arguments, once and twice, over each alone, and of the pullback."""
    function = partial(pullback, case.function(jaxbn))
    arrays, dy = members(case)
    want = [expected(case, *member) for member in zip(arrays, dy, strict=True)]
    yield "vmap", Run(jax.vmap(function), (stacked(arrays), stacked(dy)), stacked(want))

    back = [expected(case, *member) for member in zip(arrays[::-1], dy, strict=True)]
    twice = stacked([stacked(arrays), stacked(arrays[::-1])])
    nested = jax.vmap(jax.vmap(function), (0, None))
    yield "vmap of vmap", Run(nested, (twice, stacked(dy)), stacked([stacked(want), stacked(back)]))

    first = arrays[0]
    for position, name in enumerate(case.names):
        batch = [member[position] for member in arrays]
        sets = [[*first[:position], member, *first[position + 1 :]] for member in batch]
        want = stacked([expected(case, one, dy[0]) for one in sets])
        in_axes = [1 if index == position else None for index in range(len(first))]
        arguments = [*first[:position], jnp.stack(batch, 1), *first[position + 1 :]]
        yield f"vmap over {name}", Run(jax.vmap(function, (in_axes, None)), (arguments, dy[0]), want)

    def of_the_pullback(arrays: Any, dy: Any) -> Any:
        return jax.vmap(jax.vjp(case.function(jaxbn), *arrays)[1])(dy)

    want = stacked([expected(case, first, each)[1] for each in dy])
    yield "vmap of the pullback", Run(of_the_pullback, (first, stacked(dy)), want)


def repeated(case: Case) -> Iterator[tuple[str, Run]]:
    """In the body of `scan`, and under `checkpoint`."""
    arrays, dy = members(case)
    want = [expected(case, *member) for member in zip(arrays, dy, strict=True)]

    def scanned(arrays: Any, dy: Any) -> Any:
        step = partial(pullback, case.function(jaxbn))
        return jax.lax.scan(lambda carry, member: (carry, step(*member)), None, (arrays, dy))[1]

    yield "scan", Run(scanned, (stacked(arrays), stacked(dy)), stacked(want))
    function = partial(pullback, jax.checkpoint(case.function(jaxbn)))
    yield "checkpoint", Run(function, (arrays[0], dy[0]), want[0])


def second_derivatives(case: Case) -> Iterator[tuple[str, Run]]:
    arrays, dy, tangents = case.arrays(), cotangents(outputs_of(case), 0), case.arrays(seed=7)

    def both(module: Any) -> tuple[Function, Function]:
        loss = partial(curved_loss, case.function(module), dy)
        return jax.grad(partial(penalty, loss)), lambda arrays, tangents: jax.jvp(
            jax.grad(loss), (arrays,), (tangents,)
        )

    ours, plain = both(jaxbn), both(jaxbn.reference)
    want = jax.jit(lambda arrays, tangents: (plain[0](arrays), plain[1](arrays, tangents)))(arrays, tangents)
    yield "grad of grad", Run(ours[0], (arrays,), want[0], 10)
    yield "jvp of grad", Run(ours[1], (arrays, tangents), want[1], 10)


def curved_loss(function: Function, dy: Sequence[jax.Array], arrays: Sequence[jax.Array]) -> jax.Array:
    """Not linear in the outputs, so that the cotangent depends on them too."""
    return sum((jnp.sum(jnp.tanh(y) * each) for y, each in zip(function(*arrays), dy, strict=True)), jnp.zeros(()))


def penalty(loss: Function, arrays: Sequence[jax.Array]) -> jax.Array:
    """A scalar function of the first derivatives that is not linear in them."""
    return sum((jnp.sum(jnp.sin(gradient)) for gradient in jax.grad(loss)(arrays)), jnp.zeros(()))


TRANSFORMATIONS: list[Transformations] = [batched, second_derivatives, repeated]


def outputs_of(case: Case) -> Any:
    return jax.eval_shape(case.function(jaxbn), *case.arrays())


def expected(case: Case, arrays: Sequence[jax.Array], dy: Sequence[jax.Array]) -> Any:
    return true_pullback(case.function(jaxbn.reference))(arrays, dy)


def members(case: Case) -> tuple[list[list[jax.Array]], list[list[jax.Array]]]:
    """Several sets of arguments and cotangents."""
    outputs = outputs_of(case)
    return [case.arrays(seed) for seed in range(MEMBERS)], [cotangents(outputs, seed) for seed in range(MEMBERS)]


def stacked(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
