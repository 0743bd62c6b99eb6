"""Validates the arguments of the public operations.

Every error names the function and the argument, then what was passed and what is required:

    conv: `stride` is 0; it must be at least 1
"""

import inspect
import math
import operator
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp

DTYPES = ("float64", "float32", "bfloat16", "float16")
OPTIONAL = ("gamma", "beta", "bias", "where", "residual")


def as_arrays(function: str, **arguments: Any) -> tuple[Any, ...]:
    """Converts the arguments to arrays; optional ones may be None. Raises ``TypeError`` if one is not an array."""
    return tuple(
        None if value is None and argument in OPTIONAL else as_array(function, argument, value)
        for argument, value in arguments.items()
    )


def as_array(function: str, argument: str, value: Any) -> jax.Array:
    # `jnp.asarray` would copy a JAX array under differentiation, and the copy would be saved for the backward pass.
    if isinstance(value, jax.Array):
        return value
    try:
        return jnp.asarray(value)
    except (TypeError, ValueError):
        raise TypeError(f"{function}: `{argument}` is {value!r}; it must be an array") from None


def require_floating(function: str, argument: str, dtype: Any) -> None:
    """Raises ``TypeError`` unless the operations support ``dtype``."""
    try:
        name = jnp.dtype(dtype).name
    except TypeError:
        name = repr(dtype)
    if name not in DTYPES:
        raise TypeError(f"{function}: `{argument}` has dtype {name}; it must be one of {', '.join(DTYPES)}")


def require_vector(function: str, argument: str, array: Any, length: int, meaning: str) -> None:
    """Raises an error unless ``array`` is a floating-point vector with ``length`` entries."""
    require_floating(function, argument, array.dtype)
    if array.shape != (length,):
        raise ValueError(f"{function}: `{argument}` has shape {array.shape}; it must be ({length},), {meaning}")


def as_integer(function: str, argument: str, value: Any, *, least: int | None = None) -> int:
    """Converts to ``int``. Raises ``TypeError`` if it is not an integer, ``ValueError`` if it is below ``least``."""
    try:
        integer = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        integer = None
    if integer is None:
        raise TypeError(f"{function}: `{argument}` is {value!r}; it must be an int")
    if least is not None and integer < least:
        raise ValueError(f"{function}: `{argument}` is {integer}; it must be at least {least}")
    return integer


def require_bool(function: str, argument: str, value: Any) -> None:
    """Raises ``TypeError`` unless ``value`` is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{function}: `{argument}` is {value!r}; it must be True or False")


def as_positive(function: str, argument: str, value: Any, dtype: Any) -> float:
    """Converts to a ``float`` that is positive and finite in ``dtype``. A traced array raises ``TypeError``."""
    try:
        number = float(value)
    except (TypeError, ValueError):  # JAX raises a TypeError for a tracer
        raise TypeError(
            f"{function}: `{argument}` is {value!r}; it must be a number that is known when traced"
        ) from None
    smallest = float(jnp.finfo(dtype).tiny)
    if not smallest <= number < math.inf:
        raise ValueError(
            f"{function}: `{argument}` is {value!r}; it must be positive and finite, at least {smallest:.3g} in {dtype}"
        )
    return number


P = ParamSpec("P")
R = TypeVar("R")

SYNONYMS = (
    ("x", "lhs", "input", "inputs"),
    ("kernel", "rhs", "weight", "weights", "filter", "filters"),
    ("gamma", "scale", "weight"),
    ("beta", "bias", "offset", "shift"),
    ("stride", "strides", "window_strides"),
    ("padding", "pad", "pads"),
    ("dilation", "rhs_dilation", "kernel_dilation", "dilation_rate", "dilations"),
    ("groups", "group", "feature_group_count"),
    ("dimension_numbers", "data_format", "dimension_spec"),
    ("preferred_element_type", "dtype"),
    ("epsilon", "eps"),
    ("mean", "running_mean", "moving_mean"),
    ("var", "variance", "running_var", "moving_variance"),
    ("axis", "feature_axis", "channel_axis"),
    ("axis_name", "cross_replica_axis", "process_group"),
    ("where", "mask"),
    ("features", "num_features", "channels", "num_channels"),
)
"""Names that libraries use for the same argument. The error suggests the one that the function has."""

_SHAPES = "the window and the numbers of channels are those of the arrays' shapes"
_TWO_FUNCTIONS = "`batch_norm` takes the batch's statistics, as in training, `batch_norm_inference` those it is given"
_RUNNING = "`update_running_stats` averages the batches' moments; its `momentum` is the weight of the new batch"
_NO_PARAMETERS = "a parameter is an array that the caller passes, or leaves out"
_LAX = "`conv_general_dilated` has it, and `conv_transpose` is the transposed convolution"

ELSEWHERE = {
    **dict.fromkeys(("kernel_size", "in_channels", "out_channels", "in_features", "out_features"), _SHAPES),
    **dict.fromkeys(("features", "num_features", "channels", "num_channels", "filters"), _SHAPES),
    **dict.fromkeys(("use_running_average", "training", "is_training", "train", "inference"), _TWO_FUNCTIONS),
    **dict.fromkeys(("deterministic", "use_global_stats", "running_mean", "running_var"), _TWO_FUNCTIONS),
    **dict.fromkeys(("moving_mean", "moving_variance", "mean", "var"), _TWO_FUNCTIONS),
    **dict.fromkeys(("momentum", "decay", "decay_rate", "ema_decay", "track_running_stats"), _RUNNING),
    **dict.fromkeys(("use_bias", "use_scale", "affine", "center", "scale"), _NO_PARAMETERS),
    **dict.fromkeys(("rngs", "key", "kernel_init", "bias_init", "scale_init", "param_dtype"), _NO_PARAMETERS),
    **dict.fromkeys(("lhs_dilation", "input_dilation", "batch_group_count"), _LAX),
    "bias": "add it to the result",
    "output_padding": "`conv_transpose` has it",
    "transpose_kernel": "help(jaxbn.conv_transpose) says how a kernel of Flax or PyTorch is converted",
    "padding_mode": "`conv` has it",
    "axis": "the channels' axis is where `dimension_numbers` has it in `x`",
}
"""For keywords without a corresponding argument: how to get the same effect."""


def public(function: Callable[P, R]) -> Callable[P, R]:
    """Decorates a public operation: explains unknown keywords, and shortens the signature that `help` shows.

    Users of Flax, Keras, PyTorch or `jax.lax` may write ``strides``, ``eps`` or ``feature_group_count``; the error then
    names the right keyword. `help` would expand every annotation, such as a dtype's, to several lines, so it gets a
    signature without annotations.
    """
    signature = inspect.signature(function)
    parameters = list(signature.parameters)

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except TypeError:
            unknown = next((keyword for keyword in kwargs if keyword not in parameters), None)
            if unknown is None:
                raise
            message = f"{function.__name__}: `{unknown}` is an unexpected keyword argument"
            raise TypeError(f"{message}; {_hint(unknown, parameters)}") from None

    without_annotations = [each.replace(annotation=each.empty) for each in signature.parameters.values()]
    call.__signature__ = inspect.Signature(without_annotations)  # pyright: ignore[reportAttributeAccessIssue]
    return call


def _hint(keyword: str, parameters: Sequence[str]) -> str:
    synonyms = [name for name in parameters if any({name, keyword} <= set(names) for names in SYNONYMS)]
    if synonyms:
        return f"it is called {' or '.join(f'`{name}`' for name in synonyms)} here"
    if keyword in ELSEWHERE:
        return ELSEWHERE[keyword]
    if close := get_close_matches(keyword, parameters, n=1):
        return f"did you mean `{close[0]}`?"
    return f"it must be one of {', '.join(parameters)}"
