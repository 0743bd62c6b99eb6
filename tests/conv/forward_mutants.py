"""Mutants that change the value as well. The check then reports the value, and compares no derivative."""

from tests.conv.mutants import FLIPPED, PLAIN, not_flipped
from tests.support.mutants import forward

Y_OF_CONV = "    y = convolution(spec, pad(layout.canonical_x(x), borders), layout.canonical_kernel(kernel))"
PLUS_BIAS = "y if bias is None else y + along_channels(bias, y)"

FORWARDS = [
    forward("_conv.conv", "kernel not flipped", Y_OF_CONV, not_flipped(Y_OF_CONV), FLIPPED),
    forward("_conv.conv", "bias dropped", PLUS_BIAS, "y", PLAIN),
]
