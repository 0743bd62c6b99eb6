"""Errors of `jaxbn.derivation` say what came and what is wanted."""

import re

import numpy as np
import pytest

from jaxbn import derivation


def ones(*shape):
    return np.ones(shape)


ERRORS = [
    (
        lambda: derivation.conv_layer(ones(4, 5, 6), ones(2, 3, 3, 3)),
        "conv_layer: `kernel` has 3 input channels, `a` has 4; kernel.shape[1] must be 4",
    ),
    (
        lambda: derivation.conv_layer(ones(4, 5, 6), ones(2, 4, 3, 3), ones(3)),
        "conv_layer: `bias` has 3 output channels, `kernel` has 2; bias.shape[0] must be 2",
    ),
    (
        lambda: derivation.conv_layer(ones(5, 6), ones(2, 4, 3, 3)),
        "conv_layer: `a` has shape (5, 6); it must have 3 axes (in, I, J), none empty",
    ),
    (
        lambda: derivation.conv_layer(ones(4, 5, 6), 1.0),
        "conv_layer: `kernel` has shape (); it must have 4 axes (out, in, N, M), none empty",
    ),
    (
        lambda: derivation.conv_layer(ones(4, 5, 6), ones(2, 4, 3, 2)),
        "conv_layer: `kernel` has M = 2; kernel.shape[3] must be odd, to have a centre",
    ),
    (
        lambda: derivation.conv_layer(ones(4, 5, 6), ones(2, 4, 7, 3)),
        "conv_layer: `kernel` is 7 × 3, the image is 5 × 6; the kernel must fit on the image, or zero_padding be True",
    ),
    (
        lambda: derivation.cross_correlation(ones(5, 6), ones(4, 3)),
        "cross_correlation: `kernel` has N = 4; kernel.shape[0] must be odd, to have a centre",
    ),
    (
        lambda: derivation.convolution(ones(5, 6), ones(3, 7)),
        "convolution: `kernel` is 3 × 7, the image is 5 × 6; the kernel must fit on the image, or zero_padding be True",
    ),
    (
        lambda: derivation.conv_input_gradient(ones(3, 4, 4), ones(2, 4, 3, 3)),
        "conv_input_gradient: `delta` has 3 output channels, `kernel` has 2; delta.shape[0] must be 2",
    ),
    (
        lambda: derivation.conv_kernel_gradient(ones(4, 5, 6), ones(2, 5, 6), zero_padding=True),
        "conv_kernel_gradient: `kernel_sides` is None with zero_padding=True, where every kernel has outputs of the "
        "image's size; kernel_sides must be (N, M)",
    ),
    (
        lambda: derivation.conv_kernel_gradient(ones(4, 5, 6), ones(2, 4, 4)),
        "conv_kernel_gradient: `delta` has 4 × 4 outputs, `a` is 5 × 6, the kernel 2 × 3; N and M must be odd, "
        "delta.shape[1:] (I-N+1, J-M+1), or (I, J) with zero_padding",
    ),
    (
        lambda: derivation.conv_kernel_gradient(ones(4, 5, 6), ones(2, 6, 6)),
        "conv_kernel_gradient: `delta` has 6 × 6 outputs, `a` is 5 × 6, the kernel 0 × 1; N and M must be odd, "
        "delta.shape[1:] (I-N+1, J-M+1), or (I, J) with zero_padding",
    ),
    (
        lambda: derivation.conv_kernel_gradient(ones(4, 5, 6), ones(2, 3, 4), zero_padding=True, kernel_sides=(3, 3)),
        "conv_kernel_gradient: `delta` has 3 × 4 outputs, `a` is 5 × 6, the kernel 3 × 3; N and M must be odd, "
        "delta.shape[1:] (I-N+1, J-M+1), or (I, J) with zero_padding",
    ),
    (
        lambda: derivation.conv_bias_gradient(ones(3, 4)),
        "conv_bias_gradient: `delta` has shape (3, 4); it must have 3 axes (out, I', J'), none empty",
    ),
    (
        lambda: derivation.batch_norm(ones(2, 3, 4, 5), ones(4), ones(3), 1e-5),
        "batch_norm: `gamma` has 4 channels, `C` has 3; gamma.shape[0] must be 3",
    ),
    (
        lambda: derivation.batch_norm(ones(2, 3, 4, 5), ones(3), ones(3), 0.0),
        "batch_norm: `epsilon` is 0.0; it must be positive",
    ),
    (
        lambda: derivation.batch_norm(ones(0, 3, 4, 5), ones(3), ones(3), 1e-5),
        "batch_norm: `C` has shape (0, 3, 4, 5); it must have 4 axes (B, K, H, W), none empty",
    ),
    (
        lambda: derivation.batch_norm_gamma_gradient(ones(2, 3, 4, 5), ones(2, 3, 5, 4), 1e-5),
        "batch_norm_gamma_gradient: `delta` has 5 rows, `C` has 4; delta.shape[2] must be 4",
    ),
    (
        lambda: derivation.batch_norm_beta_gradient(ones(2, 3)),
        "batch_norm_beta_gradient: `delta` has shape (2, 3); it must have 4 axes (B, K, H, W), none empty",
    ),
    (
        lambda: derivation.batch_norm_input_gradient(ones(2, 3, 4, 5), ones(3), ones(1, 3, 4, 5), 1e-5),
        "batch_norm_input_gradient: `delta` has 1 images, `C` has 2; delta.shape[0] must be 2",
    ),
    (
        lambda: derivation.gradient_step(ones(2, 3), ones(3), 0.1),
        "gradient_step: `gradient` has shape (3,), `parameter` has (2, 3); gradient.shape must be (2, 3)",
    ),
]


@pytest.mark.parametrize(("call", "message"), ERRORS, ids=[message[:60] for _, message in ERRORS])
def test_errors_say_what_came_and_what_is_wanted(call, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call()


def test_complex_numbers_are_refused():
    with pytest.raises(TypeError, match=r"^conv_bias_gradient: `delta` is complex; it must be real$"):
        derivation.conv_bias_gradient(ones(2, 3, 3) * 1j)
