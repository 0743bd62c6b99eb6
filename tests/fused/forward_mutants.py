"""Mutants that change the value as well. The check then reports the value, and compares no derivative."""

from tests.fused.mutants import BLOCK, RELU
from tests.support.mutants import forward

ACTIVATION = "z if options.activation is None else options.activation(z)"

FORWARDS = [
    forward("_norm.batch_norm", "ReLU dropped", ACTIVATION, "z", RELU),
    forward("_fused.batch_norm_relu_conv", "block: conv of x", "conv_fwd(conv, hidden,", "conv_fwd(conv, x,", BLOCK),
]
