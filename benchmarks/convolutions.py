"""Builds the programs to compare for one row of the table: the forward pass and the two gradients."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import jaxbn
from benchmarks import pytorch
from benchmarks.cases import REPEATS, Convolution
from benchmarks.measure import Comparison, Program
from benchmarks.peers import JAX_PEERS, Peer, torch_timer
from benchmarks.timing import Timer, alone

Forward = Callable[[Any, Any], jax.Array]


def comparisons(case: Convolution) -> Iterator[Comparison]:
    """A comparison for the forward pass and one for each gradient."""
    for quantity, floor in case.floors._asdict().items():
        if floor is not None:
            peers = _peers(case, quantity) if case.peers else {}
            yield Comparison(case.name, quantity, floor, partial(_sides, case, quantity), peers)


def _sides(case: Convolution, quantity: str) -> tuple[Program, Program]:
    x, kernel = draw(case)
    ours, plain = (program(forward, quantity, x, kernel, case.within) for forward in (our_forward(case), _plain(case)))
    return ours, plain


def _peers(case: Convolution, quantity: str) -> dict[str, Callable[[], Timer]]:
    def in_jax(make: Callable[[Convolution], Peer]) -> Timer:
        peer, (x, kernel) = make(case), draw(case)
        return alone(program(peer.forward, quantity, peer.to_images(x), peer.to_kernel(kernel)))

    peers = {name: partial(in_jax, make) for name, make in JAX_PEERS.items()}
    torch = pytorch.process()
    return peers | ({"PyTorch": partial(torch_timer, torch, case, quantity)} if torch else {})


def draw(case: Convolution) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x, kernel = (rng.standard_normal(shape, np.float32) for shape in (case.x, case.kernel))
    return x, kernel


def our_forward(case: Convolution) -> Forward:
    options: dict[str, Any] = {"stride": case.stride, "padding": case.padding}
    if case.transposed:
        return partial(jaxbn.conv_transpose, **options)
    return partial(jaxbn.conv, dilation=case.dilation, groups=case.groups, **options)


def _plain(case: Convolution) -> Forward:
    """The same convolution by `jax.lax`, for plain autodiff."""
    options: dict[str, Any] = {"stride": case.stride, "padding": case.padding}
    if not case.transposed:
        return partial(jaxbn.reference.conv, dilation=case.dilation, groups=case.groups, **options)
    return partial(lax.conv_transpose, strides=case.strides, padding=case.padding, transpose_kernel=True)


def program(forward: Forward, quantity: str, x: Any, kernel: Any, within: str | None = None) -> Program:
    y = jax.eval_shape(forward, x, kernel)
    dy = np.random.default_rng(1).standard_normal(y.shape, np.float32).astype(y.dtype)

    def dx(kernel: Any, dy: Any) -> Any:
        return jax.vjp(lambda x: forward(x, kernel), jnp.zeros(x.shape, x.dtype))[1](dy)[0]

    def dkernel(x: Any, dy: Any) -> Any:
        return jax.vjp(lambda kernel: forward(x, kernel), jnp.zeros(kernel.shape, kernel.dtype))[1](dy)[0]

    tasks = {"forward": (forward, (x, kernel)), "dx": (dx, (kernel, dy)), "dkernel": (dkernel, (x, dy))}
    function, operands = tasks[quantity]
    if within is not None:
        function, operands = _WITHIN[within](function), tuple(np.stack([operand] * REPEATS) for operand in operands)
    elif jax.default_backend() != "cpu":
        function, operands = _side_by_side(function), (operands,) * REPEATS
    return Program(function, operands)


def _side_by_side(function: Callable[..., Any]) -> Callable[..., Any]:
    """Runs several calls in one program, because the time of a single call on a GPU is mostly its launch."""
    return lambda *calls: [function(*operands) for operands in calls]


def _scanned(function: Callable[..., Any]) -> Callable[..., Any]:
    """The sum of the results over all steps of a scan, as when gradients are accumulated."""

    def scan(*operands: Any) -> Any:
        total = jax.eval_shape(function, *(operand[0] for operand in operands))
        zeros = jnp.zeros(total.shape, total.dtype)
        return lax.scan(lambda total, step: (total + function(*step), None), zeros, operands)[0]

    return scan


def _mapped(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *operands: lax.map(lambda step: function(*step), operands)


_WITHIN = {"scan": _scanned, "map": _mapped, "vmap": jax.vmap}
