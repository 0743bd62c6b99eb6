"""Mutants that change the value as well. The check then reports the value, and compares no derivative."""

from tests.fused.mutants import BLOCK, RELU
from tests.support.mutants import forward

ACTIVATION = "z if activation is None else activation(z, *constants)"

FORWARDS = [
    forward("_norm.activation", "ReLU dropped", ACTIVATION, "z", RELU),
    forward(
        "_fused.batch_norm_act_conv",
        "block: conv of x",
        "conv_fwd(options.conv, hidden,",
        "conv_fwd(options.conv, operands.x,",
        BLOCK,
    ),
]
