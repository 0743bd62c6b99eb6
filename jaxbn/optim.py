"""Gradient transformations for Optax that constrain the parameters of batch norms.

>>> import optax
>>> from jaxbn import optim
>>> optimizer = optax.chain(optax.sgd(0.1, momentum=0.9), optim.constrain_beta(2.0))
"""

from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jax.typing import ArrayLike

Layers = str | Sequence[str] | Callable[[str], bool]


def constrain_beta(
    k: ArrayLike, *, names: tuple[str, str] = ("gamma", "beta"), layers: Layers | None = None
) -> optax.GradientTransformation:
    """Bounds the shift β of every batch norm from below, at −k standard deviations of the layer's output.

        if β < −k·σ then β = −k·σ    with σ = |γ|

    The deck (D12) does not say which σ is meant. Here it is the standard deviation of the layer's output ``γ x̂ + β``,
    which is |γ| because x̂ has standard deviation one. It has the units of β; the σ of D10 has the units of the layer's
    input. With this bound, the ReLU after the layer passes the values that lie more than k standard deviations above
    the mean (below it where γ is negative), at any learning rate. Of normally distributed values these are 31 % for
    k = 0.5, 16 % for k = 1 and 2.3 % for k = 2.

    Put it last in a chain. It bounds the β that `optax.apply_updates` stores, by the γ of the same step: after each
    step ``β >= -(k * abs(γ))`` holds exactly, with both sides rounded to β's dtype, compiled or not. An update of β
    that respects the bound is passed on bit for bit, as are the updates of other parameters. Any other update of β is
    replaced by one that takes β to the bound, or above it by no more than rounding requires. A β that starts below the
    bound is moved to it in the first step. NaN stays NaN.

    Args:
        k: A positive number; ``inf`` means no constraint. It may be a real array of shape (), even a traced one (as
            under `jax.vmap`), whose value is not checked.
        names: The names of γ and β: keys of a dict, or fields of a NamedTuple, dataclass or module. In Flax they are
            ``("scale", "bias")``. Where γ is ``None``, σ is one, as in `jaxbn.batch_norm`.
        layers: The layers to constrain; ``None`` for every layer that has both names. If other layers have them too, as
            Flax's layer norms do, give labels, or a function that takes the path of a layer, such as
            ``"blocks/0/norm"``, and returns whether to constrain it. A label is a path or the end of one, with
            wildcards: ``"BatchNorm_*"`` matches every `flax.linen.BatchNorm` without an explicit name. A layer chosen
            in this way may have only β (Flax's ``use_scale=False``); its σ is one.

    Returns:
        The transformation, which has no state. Its update function needs the parameters.

    Raises:
        TypeError: ``k`` is not a real number, ``names`` is not two strings, or ``layers`` is not of the types above.
        ValueError: ``k`` is not above zero, or is an array whose shape is not (). Raised by ``init`` and ``update``:
            the parameters have no such layer, a label matches no layer, a γ is masked or its shape differs from β's, or
            no parameters are given.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> optimizer = optax.chain(optax.sgd(10.0), constrain_beta(2.0))
        >>> params = {"gamma": jnp.array([1.0, -0.5]), "beta": jnp.array([0.0, 0.0])}
        >>> gradients = {"gamma": jnp.array([0.0, 0.0]), "beta": jnp.array([0.15, 0.3])}
        >>> updates, state = optimizer.update(gradients, optimizer.init(params), params)
        >>> print(optax.apply_updates(params, updates)["beta"])
        [-1.5 -1. ]

    References:
        Deck, D12. `optax.keep_params_nonnegative` is written in the same way.
    """
    _check_k(k)
    _check_names(names)
    _check_layers(layers)

    def init(params: optax.Params) -> optax.OptState:
        _find_layers(params, names, layers)
        return optax.EmptyState()

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        if params is None:
            raise ValueError("constrain_beta: `params` is None; call update(updates, state, params)")
        leaves, treedef = jax.tree.flatten(params, is_leaf=_is_missing)
        new_updates = treedef.flatten_up_to(updates)
        for path, (gamma_index, beta_index) in _find_layers(params, names, layers).items():
            beta, sigma = jnp.asarray(leaves[beta_index]), jnp.ones((), jnp.float32)
            if gamma_index is not None:
                gamma = jnp.asarray(leaves[gamma_index])
                _require_same_shape(path, names, gamma, beta)
                new_updates[gamma_index] = _rounded_update(jnp.asarray(new_updates[gamma_index]), gamma)
                sigma = jnp.abs(_updated(gamma, new_updates[gamma_index]))
            new_updates[beta_index] = _bounded_update(
                _bound(k, sigma, beta), beta, jnp.asarray(new_updates[beta_index])
            )
        return jax.tree.unflatten(treedef, new_updates), state

    return optax.GradientTransformation(init, update)


# The next functions compute the bound and an update that respects it. They add updates to parameters, and so does
# `optax.apply_updates` later; both sums must be equal bit for bit. In a compiled program they may differ: XLA may fuse
# a product with the sum after it, which rounds once instead of twice, and may keep bfloat16 values in float32 between
# operations. `_rounded_update` prevents the first, `_round` the second.


def _bound(k: ArrayLike, sigma: jax.Array, beta: jax.Array) -> jax.Array:
    """−k·σ in β's dtype. If k is infinite and σ is zero it is NaN, which bounds nothing."""
    return -_round(jnp.asarray(k, beta.dtype) * _round(sigma, beta.dtype), beta.dtype)


def _bounded_update(bound: jax.Array, beta: jax.Array, update: jax.Array) -> jax.Array:
    """Returns the first of four candidates that does not leave β below the bound. NaN does not count as below.

    1. The update itself.
    2. The difference between the bound and β, rounded.
    3. The next larger number. If rounding made the second candidate too small, this one is at least the exact
       difference. So its exact sum with β is at least the bound, and so is the rounded sum, because rounding is
       monotonic.
    4. An update that makes β zero. It is needed only on hardware that flushes subnormal numbers to zero.
    """
    update = _rounded_update(update, beta)
    wide = jnp.promote_types(beta.dtype, update.dtype)
    difference = _round(bound.astype(wide) - beta.astype(wide), update.dtype)
    chosen = -beta.astype(update.dtype)
    for candidate in (jnp.nextafter(difference, jnp.inf), difference, update):
        chosen = jnp.where(_updated(beta, candidate) < bound, chosen, candidate)
    return chosen


def _updated(param: jax.Array, update: jax.Array) -> jax.Array:
    """The parameter that `optax.apply_updates` will store."""
    return _round(param + update, param.dtype)


def _rounded_update(update: jax.Array, param: jax.Array) -> jax.Array:
    """The update rounded to its dtype, or NaN where the parameter is NaN.

    The parameter would be NaN anyway. The `where` keeps XLA from fusing a product before it with the sum after it.
    """
    return jnp.where(jnp.isnan(param), param.astype(update.dtype), _round(update, update.dtype))


def _round(value: jax.Array, dtype: Any) -> jax.Array:
    """Rounds to ``dtype``. With `astype` alone, a compiled program may keep more digits."""
    limits = jnp.finfo(dtype)
    return jax.lax.reduce_precision(value.astype(dtype), limits.nexp, limits.nmant)


class _Layer(NamedTuple):
    """The indices of γ and β among the leaves of the parameters."""

    gamma: int | None  # None if σ is one
    beta: int


def _find_layers(params: optax.Params, names: tuple[str, str], layers: Layers | None) -> dict[str, _Layer]:
    """The layers to constrain, by path."""
    gamma_name, beta_name = names
    leaves = jax.tree_util.tree_flatten_with_path(params, is_leaf=_is_missing)[0]
    # In Flax's nnx the parameters are inside variables, which add a key to the path.
    paths = [jax.tree_util.keystr(path, simple=True, separator="/").removesuffix("/value") for path, _ in leaves]
    index_of_path = {path: index for index, path in enumerate(paths)}
    found = {}
    for beta, path in enumerate(paths):
        layer, slash, name = path.rpartition("/")
        gamma = index_of_path.get(layer + slash + gamma_name)
        is_norm = gamma is not None or (layers is not None and _has_one_parameter(layer + slash, paths))
        if name == beta_name and not _is_missing(leaves[beta][1]) and is_norm:
            found[layer] = _Layer(None if gamma is None or leaves[gamma][1] is None else gamma, beta)
    if not found:
        wanted = f"{gamma_name!r} beside a {beta_name!r}" if layers is None else repr(beta_name)
        raise ValueError(f"constrain_beta: `params` has no {wanted}; `names` must be the names of γ and β there")
    chosen = {path: found[path] for path in _choose(list(found), layers)}
    for layer, (gamma, _) in chosen.items():
        if gamma is not None and isinstance(leaves[gamma][1], optax.MaskedNode):
            raise ValueError(f"constrain_beta: {gamma_name!r} of layer {layer!r} is masked; σ is its absolute value")
    return chosen


def _choose(found: list[str], layers: Layers | None) -> list[str]:
    """The paths among ``found`` that the caller chose by ``layers``."""
    if layers is None:
        return found
    if callable(layers):
        by_label = {"the function": [path for path in found if layers(path)]}
    else:
        labels = [layers] if isinstance(layers, str) else layers
        by_label = {repr(label): [path for path in found if PurePosixPath(path).match(label)] for label in labels}
        by_label = by_label or {repr(layers): []}
    for label, chosen in by_label.items():
        if not chosen:
            raise ValueError(
                f"constrain_beta: in `layers` {label} matches none of the layers there are: {', '.join(found)}"
            )
    return [path for path in found if any(path in chosen for chosen in by_label.values())]


def _require_same_shape(path: str, names: tuple[str, str], gamma: jax.Array, beta: jax.Array) -> None:
    if gamma.shape != beta.shape:
        raise ValueError(
            f"constrain_beta: {names[0]!r} and {names[1]!r} of layer {path!r} have shapes {gamma.shape} and "
            f"{beta.shape}; they must be the same"
        )


def _check_k(k: Any) -> None:
    array = k if isinstance(k, jax.Array) else np.asarray(k)
    if not (jnp.issubdtype(array.dtype, jnp.floating) or jnp.issubdtype(array.dtype, jnp.integer)):
        raise TypeError(f"constrain_beta: `k` is {k!r}; it must be a real number")
    if array.shape != ():
        raise ValueError(f"constrain_beta: `k` has shape {array.shape}; it must be one number, of shape ()")
    if not isinstance(array, Tracer) and not float(array) > 0:
        raise ValueError(f"constrain_beta: `k` is {k!r}; it must be above zero")


def _check_names(names: Any) -> None:
    if not (isinstance(names, (tuple, list)) and len(names) == 2 and all(isinstance(name, str) for name in names)):
        raise TypeError(f"constrain_beta: `names` is {names!r}; it must be two strings, the names of γ and β")


def _check_layers(layers: Any) -> None:
    labels = [layers] if isinstance(layers, str) else layers
    if layers is None or callable(layers):
        return
    if not (isinstance(labels, (tuple, list)) and all(isinstance(label, str) and label for label in labels)):
        raise TypeError(f"constrain_beta: `layers` is {layers!r}; it must be labels, a function of a path, or None")


def _has_one_parameter(layer: str, paths: Sequence[str]) -> bool:
    """Whether a layer has a single parameter. A β alone belongs to a batch norm; other biases come with a kernel."""
    return sum(path.startswith(layer) for path in paths) == 1


def _is_missing(value: Any) -> bool:
    """Whether this stands for a missing parameter. It must count as a leaf, because JAX would drop it otherwise."""
    return value is None or isinstance(value, optax.MaskedNode)
