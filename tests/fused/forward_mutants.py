"""Mutants whose value is another as well: there is no derivative to compare then, and the check says so."""

from tests.fused.mutants import BLOCK, RELU
from tests.support.mutants import forward

Y = "return kept(jax.nn.relu(y) if config.rectified else y, where)"
FORWARDS = [
    forward("_norm.maps", "ReLU dropped", Y, Y.replace("jax.nn.relu(y) if config.rectified else y", "y"), RELU),
    forward("_fused.batch_norm_relu_conv", "block: conv of x", "conv_fwd(conv, hidden,", "conv_fwd(conv, x,", BLOCK),
]
