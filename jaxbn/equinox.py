"""Layers of Equinox that compute by jaxbn, and `swap`, which changes the layers of an existing model.

    import jaxbn.equinox
    model, report = jaxbn.equinox.swap(model)           # a copy with the same arrays; a state keeps working
    layer = jaxbn.equinox.Conv2d(16, 32, 3, key=key)    # or from the start, in place of eqx.nn.Conv2d

The layers are subclasses of Equinox's, with its constructors, parameters and state, so that files of
``eqx.tree_serialise_leaves`` of either load into the other. Like Equinox's, they are called for one example, under
`jax.vmap`. Equinox must be installed (``pip install equinox``).
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxbn._conv.conv import conv
from jaxbn._conv.general import conv_general_dilated
from jaxbn._norm.batch_norm import batch_norm
from jaxbn._norm.inference import batch_norm_act_inference
from jaxbn._norm.running import average, unbiased_variance
from jaxbn._norm.statistics import Moments
from jaxbn._swap import SwapReport, reason_to_leave

try:
    import equinox as eqx
except ImportError:
    raise ImportError("jaxbn.equinox: Equinox is not installed; pip install equinox") from None

__all__ = [
    "BatchNorm",
    "Conv",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "SwapReport",
    "swap",
]


class Conv(eqx.nn.Conv):
    """``eqx.nn.Conv``, computed by `jaxbn.conv_general_dilated`. The arguments are Equinox's.

    A border of ``padding_mode`` is not saved for the backward pass: `jaxbn.conv` computes it again.
    """

    def __call__(self, x: jax.Array, *, key: Any = None) -> jax.Array:
        if x.ndim != self.num_spatial_dims + 1:
            return super().__call__(x)  # which raises Equinox's error
        if self.padding_mode == "ZEROS":
            return _convolved(self, x, self.stride, self.padding)
        if not self._has_narrow_border(x):
            return _convolved(self, self._nonzero_pad(x), self.stride, "VALID")
        axes = "DHW"[-self.num_spatial_dims :]
        y = conv(
            x[None],
            self.weight,
            stride=self.stride,
            padding=self.padding,
            padding_mode=self.padding_mode.lower(),
            dilation=self.dilation,
            groups=self.groups,
            dimension_numbers=(f"NC{axes}", f"OI{axes}", f"NC{axes}"),
            forward_mode=True,  # Its transpose is one kernel gradient for all examples under `jax.vmap`.
        )
        return _with_bias(self, y)

    def _has_narrow_border(self, x: jax.Array) -> bool:
        """Whether `jaxbn.conv` supports this border: it is narrower than the image, and of real numbers."""
        extent = [step * (taps - 1) + 1 for step, taps in zip(self.dilation, self.kernel_size, strict=True)]
        padding = self.padding
        if isinstance(padding, str):
            padding = lax.padtype_to_pads(x.shape[1:], extent, self.stride, padding)
        is_narrow = all(min(pair) >= 0 and max(pair) < size for pair, size in zip(padding, x.shape[1:], strict=True))
        return is_narrow and self.num_spatial_dims <= 3 and jnp.issubdtype(x.dtype, jnp.floating)


class Conv1d(Conv, eqx.nn.Conv1d):
    """``eqx.nn.Conv1d`` as a `Conv`."""


class Conv2d(Conv, eqx.nn.Conv2d):
    """``eqx.nn.Conv2d`` as a `Conv`."""


class Conv3d(Conv, eqx.nn.Conv3d):
    """``eqx.nn.Conv3d`` as a `Conv`."""


class ConvTranspose(eqx.nn.ConvTranspose):
    """``eqx.nn.ConvTranspose``, computed by `jaxbn.conv_general_dilated`. The arguments are Equinox's."""

    def __call__(self, x: jax.Array, *, key: Any = None) -> jax.Array:
        if x.ndim != self.num_spatial_dims + 1:
            return super().__call__(x)  # which raises Equinox's error
        padding = self._padding_transpose()
        if self.padding_mode == "CIRCULAR":
            x, padding = self._circular_pad(x, padding)
        return _convolved(self, x, (1,) * self.num_spatial_dims, padding, self.stride)


class ConvTranspose1d(ConvTranspose, eqx.nn.ConvTranspose1d):
    """``eqx.nn.ConvTranspose1d`` as a `ConvTranspose`."""


class ConvTranspose2d(ConvTranspose, eqx.nn.ConvTranspose2d):
    """``eqx.nn.ConvTranspose2d`` as a `ConvTranspose`."""


class ConvTranspose3d(ConvTranspose, eqx.nn.ConvTranspose3d):
    """``eqx.nn.ConvTranspose3d`` as a `ConvTranspose`."""


def _convolved(
    layer: Any, x: jax.Array, stride: Sequence[int], padding: Any, input_dilation: Sequence[int] | None = None
) -> jax.Array:
    y = conv_general_dilated(
        x[None], layer.weight, stride, padding, input_dilation, layer.dilation, feature_group_count=layer.groups
    )
    return _with_bias(layer, y)


def _with_bias(layer: Any, y: jax.Array) -> jax.Array:
    """Return the only entry of the batch, with the bias added."""
    return y[0] + layer.bias if layer.use_bias else y[0]


class BatchNorm(eqx.nn.BatchNorm):
    """``eqx.nn.BatchNorm``, computed by `jaxbn.batch_norm` and `jaxbn.batch_norm_act_inference`.

    Forward mode (`jax.jvp`) does not work through the layer.

    Args:
        *args, **kwargs: Equinox's arguments. With ``momentum=None`` all batches have the same weight in the averages.
        activation: An activation to apply to the result, as in `jaxbn.batch_norm_act`. It may be a module with
            parameters.
        unbiased: Whether the running variance averages unbiased variances, as in PyTorch. Equinox averages biased ones.

    Example:
        >>> import equinox as eqx, jax, jax.numpy as jnp, jaxbn
        >>> make = eqx.nn.make_with_state(jaxbn.equinox.BatchNorm)
        >>> layer, state = make(3, "batch", mode="batch", activation=jax.nn.relu)
        >>> y, state = jax.vmap(layer, (0, None), (0, None), axis_name="batch")(jnp.ones((8, 3, 5, 5)), state)
        >>> y.shape
        (8, 3, 5, 5)
    """

    activation: Callable[[Any], jax.Array] | None
    unbiased: bool = eqx.field(static=True)

    def __init__(
        self, *args: Any, activation: Callable[[Any], jax.Array] | None = None, unbiased: bool = False, **kwargs: Any
    ):
        super().__init__(*args, **kwargs)
        self.activation, self.unbiased = activation, unbiased
        if self.momentum is None and self.batch_counter is None:  # Equinox's "ema" counts no batches.
            self.batch_counter = eqx.nn.StateIndex(jnp.array(0))

    def __call__(
        self,
        x: jax.Array,
        state: eqx.nn.State,
        *,
        key: Any = None,
        inference: bool | None = None,
        residual: jax.Array | None = None,
    ) -> tuple[jax.Array, eqx.nn.State]:
        """Normalises as Equinox does. ``residual`` is added before the activation."""
        if self.inference if inference is None else inference:
            return self._by_averages(x, residual, state), state
        moments = _moments(x, self.axis_name)
        state = self._update(state, moments)
        if self.mode == "ema":
            return self._by_averages(x, residual, state), state
        return self._normalised(*self._promoted(x, residual), moments.mean, moments.var), state

    def _by_averages(self, x: jax.Array, residual: jax.Array | None, state: eqx.nn.State) -> jax.Array:
        mean, var = self._averages(state)
        return self._normalised(*self._promoted(x, residual, mean), mean, var)

    def _normalised(self, x: jax.Array, residual: jax.Array | None, mean: jax.Array, var: jax.Array) -> jax.Array:
        return batch_norm_act_inference(
            x, mean, var, self.weight, self.bias, self.activation, residual=residual, axis=0, epsilon=self.eps
        )

    def _promoted(self, x: jax.Array, residual: jax.Array | None, *vectors: jax.Array) -> tuple[Any, Any]:
        """Cast ``x`` and ``residual`` to the dtype of Equinox's result."""
        dtype = jnp.result_type(x, *vectors, *jax.tree.leaves((self.weight, self.bias)))
        return x.astype(dtype), None if residual is None else residual.astype(dtype)

    def _averages(self, state: eqx.nn.State) -> tuple[jax.Array, jax.Array]:
        """The mean and the variance for inference; those of the mode "batch" are divided by the sum of the weights."""
        mean, var = state.get(self._averages_index)
        if self.mode == "ema" or self.momentum is None:
            return mean, var
        batches = state.get(self.batch_counter)  # pyright: ignore[reportArgumentType]
        old = self.momentum ** batches.astype(jnp.promote_types(mean.dtype, jnp.float32))
        weights = jnp.where(batches == 0, 1, 1 - old).astype(mean.dtype)
        return mean / weights, var / weights

    def _update(self, state: eqx.nn.State, moments: Moments) -> eqx.nn.State:
        """Update the averages and the count of batches in the state."""
        mean, var = moments.mean, unbiased_variance(moments) if self.unbiased else moments.var
        weight, state = self._next_weight(state)
        averages = (average(*pair, weight) for pair in zip(state.get(self._averages_index), (mean, var), strict=True))
        return state.set(self._averages_index, tuple(averages))

    def _next_weight(self, state: eqx.nn.State) -> tuple[Any, eqx.nn.State]:
        """The weight of this batch in the averages, and the state after counting the batch."""
        weight: Any = None if self.momentum is None else 1 - self.momentum
        if self.batch_counter is not None:
            batches = state.get(self.batch_counter) + 1
            state = state.set(self.batch_counter, batches)
            weight = 1 / batches if weight is None else weight
        if self.ema_first_time_index is not None:
            is_first = state.get(self.ema_first_time_index)
            weight = jnp.where(is_first, 1, weight)
            state = state.set(self.ema_first_time_index, jnp.zeros_like(is_first))
        return weight, state

    @property
    def _averages_index(self) -> Any:
        return self.ema_state_index if self.mode == "ema" else self.batch_state_index


def _moments(x: jax.Array, names: Any) -> Moments:
    """Compute the moments over the example and the named axes, whose parts all have the same number of values.

    The collectives are outside the rule of `jaxbn.batch_norm`, because JAX differentiates the code inside `jax.jit` or
    `jax.checkpoint` when the names of `jax.vmap` are no longer bound.
    """
    mean, var, count = (x, jnp.zeros_like(x), jnp.ones_like(x, jnp.int32)) if x.ndim == 1 else batch_norm(x, axis=0)[1]
    total_mean = lax.pmean(mean, names)
    return Moments(total_mean, lax.pmean(var + jnp.square(mean - total_mean), names), lax.psum(count, names))


SWAPS: dict[type, type] = {
    eqx.nn.Conv: Conv,
    eqx.nn.Conv1d: Conv1d,
    eqx.nn.Conv2d: Conv2d,
    eqx.nn.Conv3d: Conv3d,
    eqx.nn.ConvTranspose: ConvTranspose,
    eqx.nn.ConvTranspose1d: ConvTranspose1d,
    eqx.nn.ConvTranspose2d: ConvTranspose2d,
    eqx.nn.ConvTranspose3d: ConvTranspose3d,
    eqx.nn.BatchNorm: BatchNorm,
}


def swap(model: Any) -> tuple[Any, SwapReport]:
    """Makes a copy of an Equinox model whose convolutions and batch norms compute by jaxbn.

    The copy has the same arrays, in the same order, and the same state indices, so that the ``eqx.nn.State`` of
    ``model`` keeps working. The state of an optimizer that was made before contains the old classes: call `swap` on it
    too. A layer that is in ``model`` twice becomes one layer. Layers in static fields and inside functions, such as
    `functools.partial`, are not found.

    Args:
        model: The model, a single layer, or any pytree of them.

    Returns:
        The copy, and a `SwapReport`: the layers that were replaced, and those that were left, with the reasons.

    Raises:
        TypeError: ``model`` is neither a module of Equinox nor another container of layers.
        ValueError: ``model`` has no convolution or batch norm of Equinox.

    Example:
        >>> import equinox as eqx, jax, jaxbn
        >>> key = jax.random.key(0)
        >>> model = eqx.nn.Sequential([eqx.nn.Conv2d(3, 8, 3, key=key), eqx.nn.BatchNorm(8, "batch", mode="batch")])
        >>> model, report = jaxbn.equinox.swap(model)
        >>> print(report)
        2 layers compute by jaxbn: layers.0, layers.1
    """
    if jax.tree_util.all_leaves([model]):
        raise TypeError(
            f"swap: `model` is of type {type(model).__name__}; it must be an equinox.Module, or a container of them"
        )
    replaced, left, copies = [], {}, {}

    def visit(path: tuple[Any, ...], node: Any) -> Any:
        name = jax.tree_util.keystr(path, simple=True, separator=".") or "the model itself"
        if type(node) in SWAPS:
            replaced.append(name)
            # Keep the original too, so that no other object gets its id.
            _, copy = copies.setdefault(id(node), (node, _by_jaxbn(node)))
            return copy
        reason = reason_to_leave(node, SWAPS)
        if reason is not None:
            left[name] = reason
        children, structure = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda each: each is not node)
        if any(child is node for _, child in children):  # a leaf
            return node
        return structure.unflatten([visit((*path, *key), child) for key, child in children])

    model = visit((), model)
    if not replaced and not left:
        raise ValueError(
            "swap: `model` has no Conv, ConvTranspose or BatchNorm of Equinox; there is nothing to replace"
        )
    return model, SwapReport(tuple(replaced), left)


def _by_jaxbn(layer: eqx.Module) -> eqx.Module:
    """Make a layer of jaxbn with the fields of a layer of Equinox."""
    kind = SWAPS[type(layer)]
    fields = {"activation": None, "unbiased": False} if kind is BatchNorm else {}
    copy = object.__new__(kind)
    vars(copy).update(vars(layer), **fields)
    return copy
