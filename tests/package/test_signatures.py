"""The public names and their signatures, compared with a list. A change of the list is a change for users."""

import importlib
import inspect
from typing import Any

import jax
import pytest

import jaxbn

CONVOLUTION = (
    "stride=1, padding='VALID', dilation=1, groups=1, flip_kernel=False, dimension_numbers=None, precision=None, "
    "preferred_element_type=None, algorithm=None"
)
BORDERED_CONVOLUTION = CONVOLUTION.replace("padding='VALID'", "padding='VALID', padding_mode='zeros'")
ALGORITHM = ", algorithm=None"
PLAIN_CONVOLUTION = CONVOLUTION.removesuffix(ALGORITHM)
STATISTICS = "epsilon=1e-05, where=None, axis_name=None, axis_index_groups=None"
RELU = str(jax.nn.relu)  # at an address that differs between runs
FORWARD_MODE = ", forward_mode=False"
TRANSPOSED = CONVOLUTION.replace("padding='VALID'", "padding='SAME', output_padding=0")

SIGNATURES = {
    "batch_norm": f"(x, gamma=None, beta=None, *, axis=-1, {STATISTICS}{FORWARD_MODE})",
    "batch_norm_act": f"(x, gamma, beta, activation, *, residual=None, axis=-1, {STATISTICS}{FORWARD_MODE})",
    "batch_norm_act_conv": (
        "(x, gamma, beta, activation, kernel, bias=None, *, residual=None, return_activation=False, "
        f"{CONVOLUTION}, {STATISTICS}{FORWARD_MODE})"
    ),
    "batch_norm_act_inference": (
        f"(x, mean, var, gamma=None, beta=None, activation={RELU}, *, residual=None, axis=-1, "
        f"epsilon=1e-05{FORWARD_MODE})"
    ),
    "batch_norm_inference": f"(x, mean, var, gamma=None, beta=None, *, axis=-1, epsilon=1e-05{FORWARD_MODE})",
    "batch_norm_relu": f"(x, gamma=None, beta=None, *, axis=-1, {STATISTICS}{FORWARD_MODE})",
    "batch_norm_relu_conv": f"(x, gamma, beta, kernel, bias=None, *, {CONVOLUTION}, {STATISTICS}{FORWARD_MODE})",
    "calibrated_batch_norm": "(x, *, axis=-1, epsilon=1e-05, where=None)",
    "cnn.apply": "(params, state, images, *, train, momentum=0.1)",
    "cnn.init": (
        "(key, config=CNNConfig(classes=10, in_channels=1, features=(32, 64, 128), dtype=<class 'jax.numpy.float32'>))"
    ),
    "conv": f"(x, kernel, bias=None, *, {BORDERED_CONVOLUTION}{FORWARD_MODE})",
    "conv_general_dilated": (
        "(lhs, rhs, window_strides, padding, lhs_dilation=None, rhs_dilation=None, dimension_numbers=None, "
        "feature_group_count=1, batch_group_count=1, precision=None, preferred_element_type=None, out_sharding=None)"
    ),
    "conv_transpose": f"(x, kernel, bias=None, *, {TRANSPOSED}{FORWARD_MODE})",
    "convolve": f"(x, kernel, *, {CONVOLUTION})",
    "convolve_input_gradient": f"(dy, kernel, input_shape, *, {CONVOLUTION})",
    "convolve_kernel_gradient": f"(x, dy, kernel_shape, *, {CONVOLUTION})",
    "explain_conv": f"(x, kernel, bias=None, *, {BORDERED_CONVOLUTION}, platform=None)",
    "fold_batch_norm": (
        "(kernel, bias, running, gamma=None, beta=None, *, transposed=False, groups=1, dimension_numbers=None, "
        "epsilon=1e-05)"
    ),
    "init_running_stats": "(features, dtype=<class 'jax.numpy.float32'>)",
    "native_kernels": "()",
    **dict.fromkeys(("patch_jax", "unpatch_jax"), "()"),
    "optim.constrain_beta": "(k, *, names=('gamma', 'beta'), layers=None)",
    **{
        f"reference.{name}": f"(x, {vectors}, *, {options})"
        for name, vectors, options in [
            ("batch_norm", "gamma=None, beta=None", f"axis=-1, {STATISTICS}"),
            ("batch_norm_inference", "mean, var, gamma=None, beta=None", "axis=-1, epsilon=1e-05"),
            ("batch_norm_relu", "gamma=None, beta=None", f"axis=-1, {STATISTICS}"),
            ("batch_norm_relu_conv", "gamma, beta, kernel, bias=None", f"{PLAIN_CONVOLUTION}, {STATISTICS}"),
            ("conv", "kernel, bias=None", BORDERED_CONVOLUTION.removesuffix(ALGORITHM)),
            ("conv_transpose", "kernel, bias=None", TRANSPOSED.removesuffix(ALGORITHM)),
        ]
    },
    "testing.check_custom_vjp": (
        "(fn, reference, *args, argnums=None, order=2, transforms='all', cotangents='all', seed=0, "
        "raise_on_failure=True)"
    ),
    "testing.saved_bytes": "(function, *args)",
    **dict.fromkeys(("torch.conv_from_torch", "torch.conv_transpose_from_torch"), "(source)"),
    **dict.fromkeys(("torch.conv_to_torch", "torch.conv_transpose_to_torch"), "(kernel, bias=None)"),
    "torch.batch_norm_from_torch": "(source)",
    "torch.batch_norm_to_torch": "(gamma, beta, running=None)",
    "update_running_stats": "(running, moments, *, momentum=0.1, unbiased=True)",
}
"""Every public function and its signature, without annotations."""

TUPLES = {
    "CalibratedBatchNorm": ("gamma", "beta", "running"),
    "ConvExplanation": ("convolve", "input_gradient", "kernel_gradient"),
    "Moments": ("mean", "var", "count"),
    "NativeKernels": ("available", "why"),
    "RunningStats": ("mean", "var", "updates"),
}
"""Every public named tuple and its fields."""


def signature_of(name: str) -> str:
    *submodule, function = name.split(".")
    module: Any = importlib.import_module(".".join(["jaxbn", *submodule]))
    signature = inspect.signature(getattr(module, function))
    parameters = [each.replace(annotation=each.empty) for each in signature.parameters.values()]
    return str(inspect.Signature(parameters))


@pytest.mark.parametrize("name", SIGNATURES)
def test_signature(name: str) -> None:
    assert signature_of(name) == SIGNATURES[name]


@pytest.mark.parametrize("name", TUPLES)
def test_fields(name: str) -> None:
    assert getattr(jaxbn, name)._fields == TUPLES[name]


def test_every_public_name_is_listed() -> None:
    assert {name for name in SIGNATURES if "." not in name} | set(TUPLES) == set(jaxbn.__all__)
