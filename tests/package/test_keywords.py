"""Keywords of Flax, PyTorch and `jax.lax`: the message says what they are called here."""

import inspect
import re
from typing import Any

import pytest

import jaxbn as typed

jaxbn: Any = typed  # what is passed here is wrong on purpose
FUNCTIONS = [name for name in typed.__all__ if inspect.isfunction(getattr(typed, name))]
OPERATIONS = [name for name in FUNCTIONS if inspect.signature(getattr(typed, name)).parameters]


@pytest.mark.parametrize(
    ("function", "keyword", "hint"),
    [
        ("conv", "strides", "it is called `stride` here"),
        ("conv", "feature_group_count", "it is called `groups` here"),
        ("conv", "rhs_dilation", "it is called `dilation` here"),
        ("conv", "kernel_dilation", "it is called `dilation` here"),
        ("conv", "data_format", "it is called `dimension_numbers` here"),
        ("conv", "weight", "it is called `kernel` here"),
        ("conv", "kernel_size", "the window and the numbers of channels are those of the arrays' shapes"),
        ("conv", "lhs_dilation", "`conv_general_dilated` has it, and `conv_transpose` is the transposed convolution"),
        ("conv", "strid", "did you mean `stride`?"),
        ("convolve", "bias", "add it to the result"),
        ("conv_transpose", "transpose_kernel", "help(jaxbn.conv_transpose) says how a kernel of Flax or PyTorch"),
        ("conv_general_dilated", "stride", "it is called `window_strides` here"),
        ("conv_general_dilated", "groups", "it is called `feature_group_count` here"),
        ("batch_norm", "eps", "it is called `epsilon` here"),
        ("batch_norm", "scale", "it is called `gamma` here"),
        ("batch_norm", "bias", "it is called `beta` here"),
        ("batch_norm", "mask", "it is called `where` here"),
        (
            "batch_norm",
            "use_running_average",
            "`batch_norm` takes the batch's statistics, as in training, `batch_norm_inf",
        ),
        (
            "batch_norm",
            "momentum",
            "`update_running_stats` averages the batches' moments; its `momentum` is the weight",
        ),
        ("batch_norm_inference", "running_mean", "it is called `mean` here"),
        ("batch_norm_inference", "running_var", "it is called `var` here"),
        ("batch_norm_relu_conv", "weight", "it is called `gamma` or `kernel` here"),
        ("batch_norm_relu_conv", "axis", "the channels' axis is where `dimension_numbers` has it in `x`"),
        ("init_running_stats", "num_features", "it is called `features` here"),
        (
            "update_running_stats",
            "decay",
            "`update_running_stats` averages the batches' moments; its `momentum` is the",
        ),
        ("update_running_stats", "x", "it must be one of running, moments, momentum, unbiased"),
    ],
)
def test_a_keyword_of_a_neighbour_says_what_it_is_called_here(function: str, keyword: str, hint: str) -> None:
    message = f"^{function}: `{keyword}` is an unexpected keyword argument; {re.escape(hint)}"
    with pytest.raises(TypeError, match=message):
        getattr(jaxbn, function)(**{keyword: 1})


@pytest.mark.parametrize("function", OPERATIONS)
def test_every_operation_names_a_keyword_that_it_has_not(function: str) -> None:
    with pytest.raises(TypeError, match=f"^{function}: `zzz` is an unexpected keyword argument; it must be one of "):
        getattr(jaxbn, function)(zzz=1)
