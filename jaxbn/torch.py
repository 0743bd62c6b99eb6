"""Converts PyTorch's parameters for jaxbn's functions, and back.

    kernel, bias = jaxbn.torch.conv_from_torch(model.conv1)
    gamma, beta, running = jaxbn.torch.batch_norm_from_torch(model.bn1)

A source is a PyTorch module, or the part of a ``state_dict`` that belongs to it, with the names ``weight``, ``bias``
and so on. Its arrays may be PyTorch's, NumPy's or JAX's. Only parameters and statistics are converted: stride, padding,
groups, epsilon and momentum are arguments of jaxbn's functions, and keep PyTorch's values.

The functions that end in ``_to_torch`` make a dictionary of tensors for ``load_state_dict(..., strict=True)``. They
need PyTorch (``pip install torch``); importing this module does not.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxbn._norm.running import RunningStats
from jaxbn._validation import as_arrays

__all__ = [
    "batch_norm_from_torch",
    "batch_norm_to_torch",
    "conv_from_torch",
    "conv_to_torch",
    "conv_transpose_from_torch",
    "conv_transpose_to_torch",
]

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def conv_from_torch(source: Any) -> tuple[jax.Array, jax.Array | None]:
    """Converts the kernel and the bias of a PyTorch convolution for `jaxbn.conv`.

    Args:
        source: A ``Conv1d``, ``Conv2d`` or ``Conv3d``, or its part of a ``state_dict``.

    Returns:
        The kernel ``(*window, in // groups, out)``, and the bias, or ``None`` if there is none.

    Raises:
        TypeError: ``source`` is neither a convolution nor a mapping.
        ValueError: A key is missing or unknown, or ``weight`` has the wrong rank.

    Example:
        >>> import numpy as np, jaxbn
        >>> kernel, bias = jaxbn.torch.conv_from_torch({"weight": np.ones((8, 4, 3, 5)), "bias": np.zeros(8)})
        >>> kernel.shape, bias.shape
        ((3, 5, 4, 8), (8,))
    """
    weight, bias = _weight_and_bias("conv_from_torch", source, "Conv")
    return jnp.moveaxis(weight, (0, 1), (-1, -2)), bias


def conv_to_torch(kernel: jax.Array, bias: jax.Array | None = None) -> dict[str, Any]:
    """Converts the kernel and the bias of `jaxbn.conv` to the ``state_dict`` of a PyTorch convolution.

    Args:
        kernel: The kernel ``(*window, in // groups, out)``.
        bias: The bias; ``None`` for a convolution with ``bias=False``.

    Returns:
        ``weight``, and ``bias`` if it is given, as tensors.

    Raises:
        ImportError: PyTorch is not installed.
        TypeError: An argument is not an array.
        ValueError: ``kernel`` has the wrong rank.
    """
    return _to_torch("conv_to_torch", kernel, bias)


def conv_transpose_from_torch(source: Any) -> tuple[jax.Array, jax.Array | None]:
    """Converts the kernel and the bias of a PyTorch transposed convolution for `jaxbn.conv_transpose`.

    Args:
        source: A ``ConvTranspose1d``, ``ConvTranspose2d`` or ``ConvTranspose3d``, or its part of a ``state_dict``.

    Returns:
        The kernel ``(*window, out // groups, in)``, and the bias, or ``None`` if there is none.

    Raises:
        TypeError: ``source`` is neither a transposed convolution nor a mapping.
        ValueError: A key is missing or unknown, or ``weight`` has the wrong rank.

    Example:
        >>> import numpy as np, jaxbn
        >>> kernel, bias = jaxbn.torch.conv_transpose_from_torch({"weight": np.ones((8, 4, 3, 5))})
        >>> kernel.shape, bias
        ((3, 5, 4, 8), None)
    """
    # PyTorch's weight is (in, out // groups, *window): the axes are those of the convolution that is transposed.
    weight, bias = _weight_and_bias("conv_transpose_from_torch", source, "ConvTranspose")
    return jnp.moveaxis(weight, (0, 1), (-1, -2)), bias


def conv_transpose_to_torch(kernel: jax.Array, bias: jax.Array | None = None) -> dict[str, Any]:
    """Converts the arguments of `jaxbn.conv_transpose` to the ``state_dict`` of a PyTorch transposed convolution.

    Args:
        kernel: The kernel ``(*window, out // groups, in)``.
        bias: The bias; ``None`` for a convolution with ``bias=False``.

    Returns:
        ``weight``, and ``bias`` if it is given, as tensors.

    Raises:
        ImportError: PyTorch is not installed.
        TypeError: An argument is not an array.
        ValueError: ``kernel`` has the wrong rank.
    """
    return _to_torch("conv_transpose_to_torch", kernel, bias)


def batch_norm_from_torch(source: Any) -> tuple[jax.Array | None, jax.Array | None, RunningStats | None]:
    """Converts γ, β and the running statistics of a PyTorch batch norm.

    PyTorch's running variance is unbiased, as `jaxbn.update_running_stats` keeps it by default, with the same momentum.

    Args:
        source: A ``BatchNorm1d``, ``BatchNorm2d``, ``BatchNorm3d`` or ``SyncBatchNorm``, or its part of a
            ``state_dict``.

    Returns:
        γ and β, which are ``None`` with ``affine=False``, and the `RunningStats`, which are ``None`` with
        ``track_running_stats=False``. Each channel has ``num_batches_tracked`` updates.

    Raises:
        TypeError: ``source`` is neither a batch norm nor a mapping.
        ValueError: A key is missing or unknown, or the vectors differ in length.

    Example:
        >>> import numpy as np, jaxbn
        >>> part = {"running_mean": np.zeros(3), "running_var": np.ones(3), "num_batches_tracked": 7}
        >>> gamma, beta, running = jaxbn.torch.batch_norm_from_torch(part)
        >>> gamma, running.updates.tolist()
        (None, [7, 7, 7])
    """
    function = "batch_norm_from_torch"
    state = _state(function, source, "BatchNorm")
    affine, tracked = "weight" in state or "bias" in state, any(name in state for name in STATISTICS)
    _require_keys(function, state, (*("weight", "bias") * affine, *STATISTICS * tracked), ())
    vectors = {name: array for name, array in state.items() if name != "num_batches_tracked"}
    if len({array.shape for array in vectors.values()}) > 1 or any(array.ndim != 1 for array in vectors.values()):
        shapes = {name: array.shape for name, array in vectors.items()}
        raise ValueError(f"{function}: `source` has arrays of the shapes {shapes}; they must be vectors of one length")
    running = None
    if tracked:
        mean, var, count = (state[name] for name in STATISTICS)
        running = RunningStats(mean, var, jnp.full(mean.shape, count.reshape(()), jnp.int32))
    return state.get("weight"), state.get("bias"), running


def batch_norm_to_torch(
    gamma: jax.Array | None, beta: jax.Array | None, running: RunningStats | None = None
) -> dict[str, Any]:
    """Converts γ, β and running statistics to the ``state_dict`` of a PyTorch batch norm.

    Args:
        gamma, beta: The parameters. ``None`` for both gives the state of a batch norm with ``affine=False``. If only
            one is ``None``, γ = 1 or β = 0 takes its place, because PyTorch has both or none.
        running: The running statistics; ``None`` gives the state of a batch norm with ``track_running_stats=False``.
            PyTorch has one ``num_batches_tracked``, which is the largest of the channels' updates.

    Returns:
        The tensors.

    Raises:
        ImportError: PyTorch is not installed.
        TypeError: An argument is not an array.
    """
    gamma, beta = as_arrays("batch_norm_to_torch", gamma=gamma, beta=beta)
    state: dict[str, jax.Array] = {}
    if gamma is not None:
        state |= {"weight": gamma, "bias": jnp.zeros_like(gamma) if beta is None else beta}
    elif beta is not None:
        state |= {"weight": jnp.ones_like(beta), "bias": beta}
    if running is not None:
        state |= {"running_mean": running.mean, "running_var": running.var}
    tensors = {name: _tensor(array) for name, array in state.items()}
    if running is not None:
        tensors["num_batches_tracked"] = _torch().tensor(int(running.updates.max()))
    return tensors


def _weight_and_bias(function: str, source: Any, kind: str) -> tuple[jax.Array, jax.Array | None]:
    state = _state(function, source, kind)
    _require_keys(function, state, ("weight",), ("bias",))
    _require_rank(function, "weight", state["weight"])
    return state["weight"], state.get("bias")


def _to_torch(function: str, kernel: Any, bias: Any) -> dict[str, Any]:
    kernel, bias = as_arrays(function, kernel=kernel, bias=bias)
    _require_rank(function, "kernel", kernel)
    weight = _tensor(jnp.moveaxis(kernel, (-1, -2), (0, 1)))
    return {"weight": weight} if bias is None else {"weight": weight, "bias": _tensor(bias)}


def _require_rank(function: str, name: str, array: jax.Array) -> None:
    if array.ndim not in (3, 4, 5):
        raise ValueError(f"{function}: `{name}` has shape {array.shape}; it must have rank 3, 4 or 5")


def _state(function: str, source: Any, kind: str) -> dict[str, jax.Array]:
    """The arrays of a mapping, or of a module of a class such as ``Conv2d`` if ``kind`` is ``Conv``."""
    if not isinstance(source, Mapping):
        names = [each.__name__ for each in type(source).__mro__]
        wanted = (*(f"{kind}{dimensions}d" for dimensions in (1, 2, 3)), f"Sync{kind}")
        if not hasattr(source, "state_dict") or not set(wanted) & set(names):
            raise TypeError(
                f"{function}: `source` is of type {names[0]}; it must be PyTorch's {', '.join(wanted[:3])}, or the "
                "part of a state_dict that belongs to one"
            )
        source = source.state_dict()
    return {str(name): _array(value) for name, value in source.items()}


def _require_keys(function: str, state: dict[str, Any], wanted: tuple[str, ...], optional: tuple[str, ...]) -> None:
    missing, surplus = set(wanted) - set(state), set(state) - set(wanted) - set(optional)
    if missing or surplus:
        problems = [f"lacks {name!r}" for name in sorted(missing)] + [f"has {name!r}" for name in sorted(surplus)]
        most = ", ".join(map(repr, (*wanted, *optional)))
        raise ValueError(f"{function}: `source` {' and '.join(problems)}; its keys must be {most}")


def _array(value: Any) -> jax.Array:
    if hasattr(value, "detach"):  # a tensor
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":  # NumPy does not have this dtype
            return jnp.asarray(value.float().numpy(), jnp.bfloat16)
        value = value.numpy()
    return jnp.asarray(value)


def _tensor(array: jax.Array) -> Any:
    torch = _torch()
    if array.dtype == jnp.bfloat16:
        return torch.from_numpy(np.array(array, np.float32)).to(torch.bfloat16)
    return torch.from_numpy(np.array(array))  # a copy, because PyTorch wants to write into it


def _torch() -> Any:
    try:
        return import_module("torch")
    except ImportError:
        raise ImportError("jaxbn.torch: PyTorch is not installed; pip install torch") from None
