"""A window of one tap: every output sees one input, and each map is one matrix product over the channels.

These are patches of one pixel; the algorithm has a name of its own because the table prefers it more often.
"""

from jaxbn._conv.algorithms import patches
from jaxbn._conv.geometry import ConvGeometry


def applies(geometry: ConvGeometry) -> bool:
    return max(geometry.window) == 1 and patches.applies(geometry)


convolve = patches.convolve
input_gradient = patches.input_gradient
kernel_gradient = patches.kernel_gradient
