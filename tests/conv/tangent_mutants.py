"""Mutants of the tangent rules of `conv` and `conv_transpose`."""

from functools import partial

from tests.conv.mutants import FLIPPED, PLAIN, TRANSPOSED, TRANSPOSED_FLIPPED, not_flipped
from tests.support.mutants import tangent

PAIRS = "((dx, kernel), (x, dkernel))"
WITH_BIAS = "dy if dbias is None else dy + along_channels(dbias, dy)"
SUM = "reduce(jnp.add, map(widened, products))"
PRODUCT = "convolution(spec, pad(layout.canonical_x(left), borders), layout.canonical_kernel(right))"
PRODUCT_T = PRODUCT.replace("convolution", "input_gradient").replace(
    "pad(layout.canonical_x(left), borders)", "layout.canonical_x(left)"
)

of_conv = partial(tangent, "_conv.conv")
of_conv_transpose = partial(tangent, "_conv.conv_transpose")

TANGENTS = [
    of_conv("dx ignored", PAIRS, "((x, dkernel),)", PLAIN),
    of_conv("dK ignored", PAIRS, "((dx, kernel),)", PLAIN),
    of_conv("dK: sign", PAIRS, PAIRS.replace("(x,", "(-x,"), PLAIN),
    of_conv("dbias ignored", WITH_BIAS, "dy", PLAIN),
    of_conv("dbias twice", WITH_BIAS, WITH_BIAS.replace("along", "2 * along"), PLAIN),
    of_conv("kernel not flipped", PRODUCT, not_flipped(PRODUCT), FLIPPED),
    of_conv("in bfloat16", SUM, f"{SUM}.astype('bfloat16').astype(x.dtype)", PLAIN),
    of_conv("not differentiated again", PAIRS, PAIRS.replace("(x,", "(lax.stop_gradient(x),"), PLAIN, ("jvp of grad",)),
    of_conv_transpose("transposed: dx ignored", PAIRS, "((x, dkernel),)", TRANSPOSED),
    of_conv_transpose("transposed: dK ignored", PAIRS, "((dx, kernel),)", TRANSPOSED),
    of_conv_transpose("transposed: dbias ignored", WITH_BIAS, "dy", TRANSPOSED),
    of_conv_transpose("transposed: kernel not flipped", PRODUCT_T, not_flipped(PRODUCT_T), TRANSPOSED_FLIPPED),
]
