"""Validates the arguments of a batch norm when it is traced, and records the static options."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxbn._channels import wide_dtype, widened
from jaxbn._norm.activation import Activation, as_activation
from jaxbn._norm.collectives import Collectives
from jaxbn._sharding import sharded_as, vary_alike, varying
from jaxbn._validation import as_arrays, as_integer, as_positive, require_floating, require_vector


@dataclass(frozen=True, kw_only=True)
class BatchNormOptions:
    """The static options of a batch norm, validated."""

    axis: int  # the channels' axis, from 0
    epsilon: float
    collectives: Collectives | None = None  # None: the batch is not split over named axes
    activation: Activation | None = None  # applied to y

    @property
    def axis_names(self) -> tuple[Any, ...]:
        """The names of the axes that the batch is split over."""
        return () if self.collectives is None else self.collectives.axis_names


def training_options(
    function: str,
    x: jax.Array,
    gamma: jax.Array | None,
    beta: jax.Array | None,
    *,
    axis: int,
    epsilon: float,
    axis_name: Any,
    axis_index_groups: Sequence[Sequence[int]] | None,
) -> BatchNormOptions:
    """Validate the arguments of a batch norm that normalises with the statistics of the batch."""
    options = common_options(function, x, axis=axis, epsilon=epsilon, gamma=gamma, beta=beta)
    if 0 in x.shape:
        raise ValueError(f"{function}: `x` has shape {x.shape}; no axis may have size 0")
    collectives = _collectives(function, x, axis_name, axis_index_groups)
    return replace(options, collectives=collectives)


def with_activation(
    function: str, options: BatchNormOptions, activation: Any, x: jax.Array
) -> tuple[BatchNormOptions, tuple[Any, ...]]:
    """Check the activation, which may be ``None``. Return the options with it, and the arrays that it closes over."""
    if activation is None:
        return options, ()
    activation, constants = as_activation(function, activation, jax.eval_shape(widened, x))
    if options.collectives is not None:
        constants = options.collectives.copy_for_each_member(*constants)
    return replace(options, activation=activation), constants


def common_options(
    function: str, x: jax.Array, *, axis: int, epsilon: float, **vectors: jax.Array | None
) -> BatchNormOptions:
    """Validate the arguments that training and inference share; ``vectors`` have one entry for each channel."""
    require_floating(function, "x", x.dtype)
    if x.ndim < 1:
        raise ValueError(f"{function}: `x` has rank 0; it must have an axis of channels")
    axis = as_integer(function, "axis", axis)
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(
            f"{function}: `axis` is {axis}, `x` has rank {x.ndim}; it must be from {-x.ndim} to {x.ndim - 1}"
        )
    epsilon = as_positive(function, "epsilon", epsilon, wide_dtype(x.dtype))
    for argument, vector in vectors.items():
        if vector is not None:
            require_vector(function, argument, vector, x.shape[axis], f"one entry for each channel of x.shape[{axis}]")
    return BatchNormOptions(axis=axis % x.ndim, epsilon=epsilon)


def as_mask(function: str, where: Any, x: jax.Array) -> jax.Array | None:
    """Return ``where`` with the rank of ``x``. Raise unless it is boolean and broadcasts to ``x``."""
    if where is None:
        return None
    (where,) = as_arrays(function, where=where)
    if where.dtype != jnp.bool_:
        raise TypeError(
            f"{function}: `where` has dtype {where.dtype}; it must be bool, True for the entries that count"
        )
    shape = (1,) * (x.ndim - where.ndim) + where.shape
    if len(shape) != x.ndim or any(size not in (1, full) for size, full in zip(shape, x.shape, strict=True)):
        raise ValueError(f"{function}: `where` has shape {where.shape}; it must broadcast to x.shape, {x.shape}")
    return sharded_as(x, where.reshape(shape))


def as_residual(function: str, residual: jax.Array | None, x: jax.Array) -> jax.Array | None:
    """Return ``residual`` with the sharding of ``x``. Raise unless it has the shape and the dtype of ``x``."""
    if residual is not None and residual.dtype != x.dtype:
        raise TypeError(f"{function}: `residual` has dtype {residual.dtype}; it must be that of `x`, {x.dtype}")
    if residual is not None and residual.shape != x.shape:
        raise ValueError(f"{function}: `residual` has shape {residual.shape}; it must be that of `x`, {x.shape}")
    return sharded_as(x, residual)


def require_batch(function: str, x: jax.Array, alternative: str = "") -> None:
    """Raise unless ``x`` has a batch axis. ``alternative`` is added to the message."""
    if x.ndim < 2:
        wanted = f"it must have at least two axes, batch and channels{alternative}"
        raise ValueError(f"{function}: `x` has rank {x.ndim}; {wanted}")


def with_batch_axis(options: BatchNormOptions, x: jax.Array, *others: jax.Array | None) -> tuple[Any, ...]:
    """Turn a single example of shape ``(channels,)`` into a batch of one. Other arrays are returned unchanged."""
    if x.ndim > 1:
        return options, x, *others
    batches = (None if array is None else jnp.expand_dims(array, 0) for array in (x, *others))
    return replace(options, axis=1), *batches


def shard_vectors(options: BatchNormOptions, x: jax.Array, *vectors: jax.Array | None) -> tuple[jax.Array | None, ...]:
    """Shard the vectors as the channels of ``x`` are; under `jax.vmap` with an axis name, copy them for each member."""
    sharded = [sharded_as(x, vector, [options.axis]) for vector in vectors]
    return tuple(sharded) if options.collectives is None else options.collectives.copy_for_each_member(*sharded)


def _collectives(function: str, x: jax.Array, axis_name: Any, axis_index_groups: Any) -> Collectives | None:
    """Return the collectives over the named axes. Raise unless the axes are bound and the groups partition them."""
    if axis_name is None:
        if axis_index_groups is not None:
            raise ValueError(f"{function}: `axis_index_groups` is given without `axis_name`; both must be given")
        return None
    names = tuple(axis_name) if isinstance(axis_name, (tuple, list)) else (axis_name,)
    try:
        size = lax.axis_size(names)
    except (NameError, TypeError, ValueError):  # an unbound name; an object that cannot be a name
        raise ValueError(
            f"{function}: `axis_name` is {axis_name!r}, which is not bound; it must name an axis of a jax.shard_map or "
            "jax.vmap(..., axis_name=...) around the call"
        ) from None
    if not names:
        raise ValueError(f"{function}: `axis_name` is {axis_name!r}; it must name an axis, or be None")
    in_mesh = {name in jax.sharding.get_abstract_mesh().manual_axes for name in names}
    if len(in_mesh) != 1:
        raise ValueError(
            f"{function}: `axis_name` is {axis_name!r}; it must name axes of a jax.shard_map or of jax.vmap, not both"
        )
    under_vmap = in_mesh == {False}
    groups = _groups(function, axis_index_groups, size)
    varying_is_checked = frozenset(names) <= varying(vary_alike(x, over=names)[0])
    one_cotangent = under_vmap or (groups is None and varying_is_checked)
    return Collectives(names, groups, under_vmap, moments_have_one_cotangent=one_cotangent)


def _groups(function: str, axis_index_groups: Any, size: int) -> tuple[tuple[int, ...], ...] | None:
    """Return the groups as tuples. Raise unless they are equally long and have every index below ``size`` once."""
    if axis_index_groups is None:
        return None
    lists = (list, tuple)
    if not (isinstance(axis_index_groups, lists) and all(isinstance(group, lists) for group in axis_index_groups)):
        raise TypeError(f"{function}: `axis_index_groups` is {axis_index_groups!r}; it must be a list of lists of ints")
    groups = tuple(
        tuple(as_integer(function, "axis_index_groups", index) for index in group) for group in axis_index_groups
    )
    if sorted(sum(groups, ())) != list(range(size)) or len({len(group) for group in groups}) != 1:
        raise ValueError(
            f"{function}: `axis_index_groups` is {axis_index_groups!r}; it must have every index from 0 to {size - 1} "
            "once, in groups of one size"
        )
    return groups
