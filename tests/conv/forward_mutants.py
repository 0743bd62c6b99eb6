"""Mutants whose value is another as well: there is no derivative to compare then, and the check says so."""

from tests.conv.mutants import FLIPPED, PLAIN
from tests.support.mutants import forward

Y_OF_CONV = "    y = convolve(*how, layout.canonical_x(x), layout.canonical_kernel(kernel, flip=flip))"
PLUS_BIAS = "return y if bias is None else y + along_channels(bias, y)"

FORWARDS = [
    forward("_conv.rules", "kernel not flipped", Y_OF_CONV, Y_OF_CONV.replace("flip=flip", "flip=False"), FLIPPED),
    forward(
        "_conv.rules", "bias dropped", "return y if bias is None else y + along_channels(bias, y)", "return y", PLAIN
    ),
]
