"""Gradient transformations for Optax that know of batch norm.

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
    """Keeps the shift of every batch norm from falling below −k standard deviations of the layer's output.

        if β < −k·σ then β = −k·σ    with σ = |γ|

    The deck (D12) leaves open which σ is meant. Here it is the standard deviation of what the layer gives out,
    ``γ x̂ + β``, which is |γ|, since that of x̂ is one; β has the same units, whereas the σ of D10 has those of the
    layer's input. So the ReLU behind the layer passes what lies more than k deviations above the mean (below it where γ
    is negative), however far the learning rate pushes: of normal values 31 % at k = 0.5, 16 % at 1, 2.3 % at 2.

    Chain it last. It bounds what `optax.apply_updates` stores, with the γ of the same step: after each step
    ``β >= -(k * abs(γ))``, both sides rounded to β's dtype, holds without any tolerance, compiled or not. An update of
    β that respects this passes bit by bit, as do all other updates. One that does not becomes the one that leads to the
    bound, or above it by as little as the rounding of updates allows. A β that starts below the bound is moved there in
    the first step. What is NaN stays NaN.

    Args:
        k: A positive number, ``inf`` for no constraint; or a real array of shape (), which may be traced, so that a
            program can `jax.vmap` over k. A traced one is not checked.
        names: What γ and β are called: the keys of a dict, or the fields of a NamedTuple, dataclass or module. Flax's
            are ``("scale", "bias")``. Where γ is ``None``, σ is one, as it is in `jaxbn.batch_norm`.
        layers: Which layers to constrain; ``None`` is each that has both names. Elsewhere than in jaxbn the names are
            not those of batch norms alone: a layer norm of Flax has the same ones. Then give labels, or a function from
            a layer's path, such as ``"blocks/0/norm"``, to whether it counts. A label is a path or the end of one, with
            wildcards: ``"BatchNorm_*"`` is each `flax.linen.BatchNorm` without a name. A layer chosen so may have
            nothing but β (Flax's ``use_scale=False``): its σ is one.

    Returns:
        The transformation. It keeps no state; its update needs the parameters.

    Raises:
        TypeError: ``k`` is not a real number, ``names`` are not two strings, or ``layers`` are no labels.
        ValueError: ``k`` is an array of another shape than (), not above zero, or NaN. From ``init`` and ``update``:
            the parameters have no such layer, or a label matches none; a γ is masked or has another shape than its β;
            there are no parameters.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> optimizer = optax.chain(optax.sgd(10.0), constrain_beta(2.0))
        >>> params = {"gamma": jnp.array([1.0, -0.5]), "beta": jnp.array([0.0, 0.0])}
        >>> gradients = {"gamma": jnp.array([0.0, 0.0]), "beta": jnp.array([0.15, 0.3])}
        >>> updates, state = optimizer.update(gradients, optimizer.init(params), params)
        >>> print(optax.apply_updates(params, updates)["beta"])
        [-1.5 -1. ]

    References:
        Deck, D12. The idiom is that of `optax.keep_params_nonnegative`.
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
        leaves, structure = jax.tree.flatten(params, is_leaf=_is_leaf)
        new = structure.flatten_up_to(updates)
        for path, (gamma_place, beta_place) in _find_layers(params, names, layers).items():
            beta, sigma = jnp.asarray(leaves[beta_place]), jnp.ones((), jnp.float32)
            if gamma_place is not None:
                gamma = jnp.asarray(leaves[gamma_place])
                _require_one_shape(path, names, gamma, beta)
                new[gamma_place] = _as_stored(jnp.asarray(new[gamma_place]), gamma)
                sigma = jnp.abs(_applied(gamma, new[gamma_place]))
            new[beta_place] = _keep_above(_bound(k, sigma, beta), beta, jnp.asarray(new[beta_place]))
        return jax.tree.unflatten(structure, new), state

    return optax.GradientTransformation(init, update)


# The bound, and the update that keeps it. The sums of parameters and updates are computed here and once more where the
# updates are applied, and must be the same to the bit. In a compiled program they may not be: a product and the sum
# behind it may be rounded once instead of twice, and bfloat16 may keep float32's digits on the way. `_as_stored` and
# `_round` rule these out.


def _bound(k: ArrayLike, sigma: jax.Array, beta: jax.Array) -> jax.Array:
    """−k·σ in β's dtype; NaN, which bounds nothing, for an infinite k and a σ of zero."""
    return -_round(jnp.asarray(k, beta.dtype) * _round(sigma, beta.dtype), beta.dtype)


def _keep_above(bound: jax.Array, beta: jax.Array, update: jax.Array) -> jax.Array:
    """The first of four updates that leaves β at the bound or above; NaN is not below it.

    The second is the way to the bound, rounded. Where that falls short, the next longer update is at least the way
    itself, so the sum is, before it is rounded, at least the bound, and after it too: rounding keeps order. The fourth
    leads to zero; only where subnormal numbers are flushed does it come to that.
    """
    update = _as_stored(update, beta)
    wide = jnp.promote_types(beta.dtype, update.dtype)
    way = _round(bound.astype(wide) - beta.astype(wide), update.dtype)
    chosen = -beta.astype(update.dtype)
    for candidate in (jnp.nextafter(way, jnp.inf), way, update):
        chosen = jnp.where(_applied(beta, candidate) < bound, chosen, candidate)
    return chosen


def _applied(param: jax.Array, update: jax.Array) -> jax.Array:
    """What `optax.apply_updates` stores."""
    return _round(param + update, param.dtype)


def _as_stored(value: jax.Array, param: jax.Array) -> jax.Array:
    """``value``, but NaN where the parameter is: a product is not fused with a sum through a choice between two."""
    return jnp.where(jnp.isnan(param), param.astype(value.dtype), _round(value, value.dtype))


def _round(value: jax.Array, dtype: Any) -> jax.Array:
    """``value`` in ``dtype``, which `astype` alone does not promise in a compiled program."""
    limits = jnp.finfo(dtype)
    return jax.lax.reduce_precision(value.astype(dtype), limits.nexp, limits.nmant)


class _Layer(NamedTuple):
    """Places among the leaves of the parameters."""

    gamma: int | None  # None where σ is one
    beta: int


def _find_layers(params: optax.Params, names: tuple[str, str], layers: Layers | None) -> dict[str, _Layer]:
    """The chosen layers, by path."""
    gamma_name, beta_name = names
    leaves = jax.tree_util.tree_flatten_with_path(params, is_leaf=_is_leaf)[0]
    # The parameters of nnx are in variables, which add a key to the path.
    paths = [jax.tree_util.keystr(path, simple=True, separator="/").removesuffix("/value") for path, _ in leaves]
    places, found = {path: place for place, path in enumerate(paths)}, {}
    for beta, path in enumerate(paths):
        layer, slash, name = path.rpartition("/")
        gamma = places.get(layer + slash + gamma_name)
        is_norm = gamma is not None or (layers is not None and _is_alone(layer + slash, paths))
        if name == beta_name and _is_there(leaves[beta][1]) and is_norm:
            found[layer] = _Layer(None if gamma is None or leaves[gamma][1] is None else gamma, beta)
    if not found:
        wanted = f"{gamma_name!r} beside a {beta_name!r}" if layers is None else repr(beta_name)
        raise ValueError(f"constrain_beta: `params` has no {wanted}; `names` must be what γ and β are called there")
    chosen = {path: found[path] for path in _choose(list(found), layers)}
    for layer, (gamma, _) in chosen.items():
        if gamma is not None and isinstance(leaves[gamma][1], optax.MaskedNode):
            raise ValueError(f"constrain_beta: {gamma_name!r} of layer {layer!r} is masked; σ is its absolute value")
    return chosen


def _choose(found: list[str], layers: Layers | None) -> list[str]:
    """The paths that the caller wants, of those there are."""
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


def _require_one_shape(path: str, names: tuple[str, str], gamma: jax.Array, beta: jax.Array) -> None:
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
        raise TypeError(f"constrain_beta: `names` is {names!r}; it must be two strings, what γ and β are called")


def _check_layers(layers: Any) -> None:
    labels = [layers] if isinstance(layers, str) else layers
    if layers is None or callable(layers):
        return
    if not (isinstance(labels, (tuple, list)) and all(isinstance(label, str) and label for label in labels)):
        raise TypeError(f"constrain_beta: `layers` is {layers!r}; it must be labels, a function of a path, or None")


def _is_alone(layer: str, paths: Sequence[str]) -> bool:
    """Whether a layer has one parameter: a β behind no γ, and not a convolution's bias."""
    return sum(path.startswith(layer) for path in paths) == 1


def _is_there(value: Any) -> bool:
    return not _is_leaf(value)


def _is_leaf(value: Any) -> bool:
    """What stands for a parameter that is not there is a leaf too, lest it be overlooked."""
    return value is None or isinstance(value, optax.MaskedNode)
