"""Compares whole networks, `jaxbn.cnn` and a ResNet-18, with the same networks on `jax.lax` and plain autodiff."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial, wraps
from itertools import product
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from benchmarks import resnet
from benchmarks.measure import Comparison, Program
from benchmarks.network_peers import CNN, network_peers
from benchmarks.resnet_peers import RESNET
from benchmarks.timing import Run
from examples.trainer import training
from jaxbn import cnn, reference

CONFIG = cnn.CNNConfig(in_channels=3)
SMALL, LARGE = (32, 16, 16, 3), (128, 32, 32, 3)
STEPS = 8
FEW, FEW_STEPS = (16, 32, 32, 3), 2
"""The batch and the number of steps of the ResNet-18 in a scan, where plain autodiff takes seconds per step."""
A_STEP: dict[str, float] = {"Flax": 1.5, "Equinox": 1.5}
IN_A_SCAN: dict[str, float] = {"Flax": 8.0, "Equinox": 8.0}
"""The floors of the ratios of other libraries, for a single step and for steps in a scan."""
LEARNING_RATE = 0.1
REPLACED = ("conv", "batch_norm", "batch_norm_relu", "batch_norm_act", "batch_norm_act_conv")
"""The operations of the networks that plain JAX replaces on the other side."""


def comparisons(*, quick: bool) -> Iterator[Comparison]:
    small = (STEPS, *SMALL)
    yield Comparison(
        "8 training steps in scan", "time", 8, partial(_sides, _steps, small), network_peers(CNN, small), IN_A_SCAN
    )
    yield Comparison("training step", "compilation", 1 / 1.5, partial(_compilations, LARGE))
    if quick:
        return
    yield Comparison("training step", "time", None, partial(_sides, _step, LARGE), network_peers(CNN, LARGE), A_STEP)
    few = (FEW_STEPS, *FEW)
    for name, shape, floor, floors in (
        ("ResNet-18, training step", LARGE, None, A_STEP),
        ("ResNet-18, 2 training steps in scan", few, 8, IN_A_SCAN),
    ):
        sides = partial(_resnet_sides, shape)
        yield Comparison(name, "time", floor, sides, network_peers(RESNET, shape), floors)
    for name, function in (("gradient penalty", _penalty_gradient), ("Hessian-vector product", _hessian_vector)):
        yield Comparison(name, "time", 1, partial(_sides, function, SMALL))
        yield Comparison(f"{name} in scan", "time", 8, partial(_sides, _scanned(function), small))


def on_plain_autodiff(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with the operations of the networks replaced by plain JAX while it is traced."""

    @wraps(function)
    def traced(*operands: Any) -> Any:
        with ExitStack() as stack:
            for module, name in product((cnn, resnet), REPLACED):
                if hasattr(module, name):
                    stack.enter_context(mock.patch.object(module, name, getattr(reference, name)))
            return function(*operands)

    return traced


def _sides(function: Callable[..., Any], shape: tuple[int, ...]) -> tuple[Run, Run]:
    operands = _operands(shape)
    return Program(function, operands), Program(on_plain_autodiff(function), operands)


def _compilations(shape: tuple[int, ...]) -> tuple[Run, Run]:
    """Runs that trace and compile a training step."""
    operands = _operands(shape)
    return compilation(_step, operands), compilation(on_plain_autodiff(_step), operands)


def compilation(function: Callable[..., Any], operands: Any) -> Run:
    def run() -> None:
        jax.clear_caches()
        Program(lambda *operands: function(*operands), operands)

    return run


def _operands(shape: tuple[int, ...]) -> tuple[Any, ...]:
    """The parameters and the state of the network, images and labels."""
    return *cnn.init(jax.random.key(0), CONFIG), *_batch(shape)


def _batch(shape: tuple[int, ...]) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    images = rng.standard_normal(shape, np.float32)
    labels = rng.integers(CONFIG.classes, size=shape[:-3], dtype=np.int32)
    return images, labels


def cnn_step(shape: tuple[int, ...]) -> Program:
    """A training step of `jaxbn.cnn`, or a scan of several if there is an axis of batches in front."""
    return Program(_steps if len(shape) == 5 else _step, _operands(shape))


def resnet_step(shape: tuple[int, ...]) -> Program:
    """A training step of the ResNet-18, or a scan of several."""
    return Program(resnet.train_step if len(shape) == 4 else _resnet_steps, _resnet_operands(shape))


def _resnet_operands(shape: tuple[int, ...]) -> tuple[Any, ...]:
    return resnet.init(jax.random.key(0)), _batch(shape)


def _resnet_sides(shape: tuple[int, ...]) -> tuple[Run, Run]:
    ours = resnet_step(shape)
    return ours, Program(on_plain_autodiff(ours.function), _resnet_operands(shape))


def _resnet_steps(state: Any, batches: Any) -> Any:
    # A new function for each trace, because JAX would reuse the trace of the other program for the same function.
    return lax.scan(lambda state, batch: resnet.train_step(state, batch), state, batches)


def _step(params: Any, running: Any, images: Any, labels: Any) -> Any:
    return _train(params, running, lambda step, state: step(state, images, labels))


def _steps(params: Any, running: Any, images: Any, labels: Any) -> Any:
    return _train(
        params, running, lambda step, state: lax.scan(lambda state, batch: step(state, *batch), state, (images, labels))
    )


def _train(params: Any, running: Any, run: Callable[..., Any]) -> Any:
    optimizer = optax.sgd(LEARNING_RATE)
    state = training.start_state(params, running, optimizer, jax.random.key(0))
    state, metrics = run(training.make_train_step(optimizer), state)
    return state.params, state.running, metrics.loss


def _loss(params: Any, running: Any, images: Any, labels: Any) -> jax.Array:
    logits, _ = cnn.apply(params, running, images, train=True)
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))


def _penalty_gradient(params: Any, running: Any, images: Any, labels: Any) -> Any:
    """The gradient of ‖∂loss/∂images‖²."""

    def penalty(params: Any) -> jax.Array:
        return jnp.sum(jax.grad(_loss, 2)(params, running, images, labels) ** 2)

    return jax.grad(penalty)(params)


def _hessian_vector(params: Any, running: Any, images: Any, labels: Any) -> Any:
    """The loss's Hessian times the parameters themselves."""
    return jax.jvp(lambda params: jax.grad(_loss)(params, running, images, labels), (params,), (params,))[1]


def _scanned(function: Callable[..., Any]) -> Callable[..., Any]:
    def over_batches(params: Any, running: Any, images: Any, labels: Any) -> Any:
        return lax.map(lambda batch: function(params, running, *batch), (images, labels))

    return over_batches
