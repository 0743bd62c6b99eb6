"""A window of one tap: every output reads one input, and each map is one matrix product over the channels.

It is `patches` with patches of one pixel. It has a separate name because the table chooses it in more cases.
"""

from jaxbn._conv.algorithms import patches
from jaxbn._conv.geometry import ConvGeometry


def applies(geometry: ConvGeometry) -> bool:
    return max(geometry.window) == 1 and patches.applies(geometry)


convolve = patches.convolve
input_gradient = patches.input_gradient
kernel_gradient = patches.kernel_gradient
