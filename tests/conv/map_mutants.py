"""Mistakes planted in the bilinear maps: in their algorithms, geometry, layouts, primitives and batching."""

from tests.conv.mutants import FACTOR, FLIPPED, PLAIN, SAME, SEVERAL_GROUPS, SQUARE, conv
from tests.support.mutants import Mutant

# Three outputs along each axis whichever of stride and dilation is which.
STRIDE_AND_DILATION = conv((2, 7, 7, 2), (3, 3, 2, 3), stride=(1, 2), dilation=(2, 1))
DEPTHWISE = conv((2, 9, 7, 3), (3, 2, 1, 3), groups=3, dilation=(2, 1))
DENSE_GROUPS = conv((2, 5, 4, 6), (3, 2, 3, 8), groups=2, algorithm="dense")
POINTWISE = conv((2, 5, 4, 3), (1, 1, 3, 4))
PATCHES = conv((2, 9, 9, 3), (2, 2, 3, 4), stride=3)
PHASES = conv((1, 7, 6, 3), (3, 3, 3, 2), stride=2, padding=1, algorithm="strided")
CHANNELS_FIRST = conv((3, 3, 3, 3), (3, 3, 3, 3), **SAME, dimension_numbers=("NCHW", "OIHW", "NCHW"))

MAPS = [
    # Sums.
    Mutant("dbias: mean over an axis", "_channels", "x.sum(first", "x.mean(first", PLAIN, "1/m with m = 5"),
    # Flips and transpositions.
    Mutant(
        "adjoint kernel not rotated",
        "_conv.algorithms.dense",
        "jnp.flip(kernel, axis=range(len(window)))",
        "kernel",
        PLAIN,
        "flipped along axes 0 and 1",
    ),
    Mutant(
        "adjoint kernel: rotated along one axis",
        "_conv.algorithms.dense",
        "range(len(window)))",
        "0)",
        PLAIN,
        "flipped along axis 1",
    ),
    Mutant(
        "adjoint kernel: order of groups",
        "_conv.algorithms.dense",
        "groups, channels_out // groups)\n    return",
        "channels_out // groups, groups)\n    return",
        DENSE_GROUPS,
    ),
    Mutant(
        "dkernel: axes of the window",
        "_conv.algorithms.dense",
        "return jnp.moveaxis(dkernel, 0, -2)",
        "return jnp.swapaxes(dkernel, 0, -2)",
        SQUARE,
        "transposed: axes 0 and 1",
    ),
    Mutant(
        "layout of dkernel: flipped along one axis",
        "_conv.layout",
        "self._flip(kernel), tuple(",
        "jnp.flip(kernel, axis=1) if self.flip_kernel else kernel, tuple(",
        FLIPPED,
        "flipped along axis 0",
    ),
    Mutant("layout of dx: not the inverse", "_conv.layout", "np.argsort(self.x)", "self.x", CHANNELS_FIRST),
    # Windows.
    Mutant(
        "dx: padding one off below",
        "_conv.geometry",
        "(extent - 1 - low, dilated_input + low - dilated_output)",
        "(extent - low, dilated_input + low - dilated_output - 1)",
        PLAIN,
        "shifted by 1",
    ),
    Mutant(
        "dx: padding one off above",
        "_conv.geometry",
        "(extent - 1 - low, dilated_input + low - dilated_output)",
        "(extent - 2 - low, dilated_input + low - dilated_output + 1)",
        PLAIN,
        "shifted by -1",
    ),
    Mutant(
        "dkernel: padding one off below",
        "_conv.geometry",
        "(low, extent - 1 + dilated_output - dilated_input - low)",
        "(low + 1, extent - 2 + dilated_output - dilated_input - low)",
        SQUARE,
        "shifted by 1",
    ),
    Mutant(
        "dkernel: padding one off above",
        "_conv.geometry",
        "(low, extent - 1 + dilated_output - dilated_input - low)",
        "(low - 1, extent + dilated_output - dilated_input - low)",
        SQUARE,
        "shifted by -1",
    ),
    Mutant(
        "dkernel: stride with dilation",
        "_conv.algorithms.dense",
        "window_strides=geometry.dilation,\n        padding=padding,\n"
        "        lhs_dilation=input_dilation,\n        rhs_dilation=geometry.stride",
        "window_strides=geometry.stride,\n        padding=padding,\n"
        "        lhs_dilation=input_dilation,\n        rhs_dilation=geometry.dilation",
        STRIDE_AND_DILATION,
    ),
    # Algorithms.
    Mutant(
        "patches: dx shifted",
        "_conv.algorithms.patches",
        "(-low, size + low - output * stride, 0)",
        "(-low - 1, size + low - output * stride + 1, 0)",
        PATCHES,
        "shifted by -1",
    ),
    Mutant(
        "patches: taps at the cell's end",
        "_conv.algorithms.patches",
        "(0, stride - extent, dilation - 1)",
        "(stride - extent, 0, dilation - 1)",
        PATCHES,
        "shifted by 1",
    ),
    Mutant(
        "pointwise: dkernel from dy reversed",
        "_conv.algorithms.patches",
        "lax.dot_general(_patches(geometry, x), _rows(dy)",
        "lax.dot_general(_patches(geometry, x), _rows(dy)[::-1]",
        POINTWISE,
        "flipped along",
    ),
    Mutant(
        "depthwise: dkernel without dilation",
        "_conv.algorithms.depthwise",
        "tap[0] * geometry.dilation[0]\n",
        "tap[0]\n",
        DEPTHWISE,
    ),
    Mutant(
        "depthwise: dkernel without the first row",
        "_conv.algorithms.depthwise",
        "lax.fori_loop(0,",
        "lax.fori_loop(1,",
        DEPTHWISE,
    ),
    Mutant(
        "depthwise: dkernel without the last row",
        "_conv.algorithms.depthwise",
        "geometry.output[0], add_row",
        "geometry.output[0] - 1, add_row",
        DEPTHWISE,
    ),
    Mutant(
        "depthwise: dkernel summed in float16",
        "_conv.algorithms.depthwise",
        "geometry.groups))\n    cotangents = _channels_first(dy.astype(dtype)",
        "geometry.groups))\n    images = images.astype('float16').astype(dtype)\n"
        "    cotangents = _channels_first(dy.astype(dtype)",
        DEPTHWISE,
        "float16",
    ),
    Mutant(
        "groups: dkernel of x's channels reversed",
        "_conv.algorithms.grouped",
        '"kernel_gradient", geometry, context, x, dy',
        '"kernel_gradient", geometry, context, x[..., ::-1], dy',
        SEVERAL_GROUPS,
        "flipped along axis 3",
    ),
    Mutant(
        "groups: dx of dy's channels reversed",
        "_conv.algorithms.grouped",
        '"input_gradient", geometry, context, dy',
        '"input_gradient", geometry, context, dy[..., ::-1]',
        SEVERAL_GROUPS,
        "flipped along axis 3",
    ),
    Mutant(
        "groups: dx of the next group's kernel",
        "_conv.algorithms.grouped",
        "context, dy, kernel)",
        "context, dy, jnp.roll(kernel, 5, -1))",
        SEVERAL_GROUPS,
    ),
    Mutant(
        "strided: phases in another order",
        "_conv.algorithms.strided",
        "jnp.stack(images,",
        "jnp.stack(images[::-1],",
        PHASES,
    ),
    Mutant(
        "strided: a phase's padding",
        "_conv.algorithms.strided",
        "- first * dilation) // stride, d",
        "- first * dilation) // stride + remainder, d",
        PHASES,
    ),
    # Precision and dtypes.
    Mutant(
        "dy twice",
        "_conv.spec",
        "return cotangent.astype(operands[0].dtype), *operands",
        "return 2 * cotangent.astype(operands[0].dtype), *operands",
        PLAIN,
        FACTOR + "2 (2",
    ),
    # Under transformations alone.
    Mutant(
        "vmap: batch axis of the left operand reversed",
        "_conv.primitives",
        "_batch_images(map_, jnp.moveaxis(left, left_axis, 0),",
        "_batch_images(map_, jnp.moveaxis(left, left_axis, 0)[::-1],",
        PLAIN,
        "only under vmap",
        ("vmap of the pullback",),
    ),
    Mutant(
        "vmap: batch axis of the right operand reversed",
        "_conv.primitives",
        "right = jnp.moveaxis(right, right_axis, both)",
        "right = jnp.moveaxis(right, right_axis, both)[::-1]",
        PLAIN,
        "only under vmap",
        ("vmap of the pullback",),
    ),
    Mutant(
        "vmap: batch axes of both operands paired wrongly",
        "_conv.batching",
        "context, left, right, spec.algorithm)\n    elif",
        "context, left, right[::-1], spec.algorithm)\n    elif",
        PLAIN,
        "only under vmap",
        ("vmap",),
    ),
]
