"""Keywords that a function does not have: the error says what a neighbour's keyword is called here.

Whoever comes from Flax, Keras, PyTorch or `jax.lax` writes ``strides``, ``eps`` or ``feature_group_count`` at first.
"""

import inspect
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import wraps
from typing import ParamSpec, TypeVar

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
"""Names of one thing, here and elsewhere. The error gives those that the function has."""

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
    "transpose_kernel": "help(jaxbn.conv_transpose) says how a kernel of Flax or PyTorch is brought over",
    "padding_mode": "`x` is padded before, by jnp.pad",
    "axis": "the channels' axis is where `dimension_numbers` has it in `x`",
}
"""Where to find what a function has no argument for."""


def explains_keywords(function: Callable[P, R]) -> Callable[P, R]:
    """The function, with an error for unknown keywords that says more than Python's."""
    arguments = list(inspect.signature(function).parameters)

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except TypeError:
            unknown = next((keyword for keyword in kwargs if keyword not in arguments), None)
            if unknown is None:
                raise
            message = f"{function.__name__}: `{unknown}` is an unexpected keyword argument"
            raise TypeError(f"{message}; {_hint(unknown, arguments)}") from None

    return call


def _hint(keyword: str, arguments: Iterable[str]) -> str:
    here = [name for name in arguments if any({name, keyword} <= set(names) for names in SYNONYMS)]
    if here:
        return f"it is called {' or '.join(f'`{name}`' for name in here)} here"
    if keyword in ELSEWHERE:
        return ELSEWHERE[keyword]
    if close := get_close_matches(keyword, arguments, n=1):
        return f"did you mean `{close[0]}`?"
    return f"it must be one of {', '.join(arguments)}"
