"""Mistakes planted in the rules of `conv` and `conv_transpose`; those in the maps are in `map_mutants`."""

import re
from typing import Any

import jax.numpy as jnp

from tests.support.cases import Case
from tests.support.mutants import Mutant


def conv(x: Any, kernel: Any, *, operation: str = "conv", **options: Any) -> Case:
    features = kernel[-2] * options.get("groups", 1) if operation == "conv_transpose" else kernel[-1]
    return Case(operation, {"x": x, "kernel": kernel, "bias": (features,)}, options)


SAME = {"padding": "SAME"}
# As many channels in as out, a square window and a square image: what is transposed still fits.
SQUARE = conv((4, 5, 5, 3), (3, 3, 3, 3), **SAME)
PLAIN = conv((5, 4, 6, 2), (3, 2, 2, 4))
FLIPPED = conv((2, 5, 5, 3), (3, 3, 3, 3), flip_kernel=True)
# The last row is in no window.
UNREACHED_ROW = conv((2, 6, 5, 3), (3, 2, 3, 4), stride=(2, 1))
# A cube of one shape with its kernel.
CUBE = conv((3, 3, 3, 3), (3, 3, 3, 3), **SAME)
SEVERAL_GROUPS = conv((2, 5, 4, 10), (3, 2, 5, 10), groups=2)
TRANSPOSED = conv((2, 4, 4, 3), (3, 3, 3, 3), operation="conv_transpose", stride=2)
TRANSPOSED_FLIPPED = conv((2, 4, 4, 3), (3, 3, 3, 3), operation="conv_transpose", flip_kernel=True)

DX = "    dx = fold(input_gradient(spec, dy, kernel), borders).astype(residuals.x.dtype)  # D5\n"
DKERNEL = "    dkernel = kernel_gradient(spec, x, dy).astype(residuals.kernel.dtype)  # D7\n"
DBIAS = "channel_sum(dy).astype(bias.dtype)"
RESIDUALS = "    return layout.restore_y(y), ConvResiduals(x, kernel, bias)\n"
OPERANDS = "in_one_dtype(dy, pad(layout.canonical_x(x), borders), layout.canonical_kernel(kernel))"
OPERANDS_T = "in_one_dtype(dy, layout.canonical_x(x), layout.canonical_kernel(kernel))"
RESULTS = "    return layout.restore_x(dx), layout.restore_kernel(dkernel), dbias\n"
DX_T = "    dx = convolution(spec, dy, kernel).astype(residuals.x.dtype)  # D3\n"
DKERNEL_T = "    dkernel = kernel_gradient(spec, dy, x).astype(residuals.kernel.dtype)  # D7\n"


def of_rule(name: str, old: str, new: str, case: Case = PLAIN, cause: str | None = None, **more: Any) -> Mutant:
    return Mutant(name, "_conv.conv", old, new, case, cause, **more)


def of_transposed_rule(name: str, old: str, new: str, case: Case, cause: str | None = None) -> Mutant:
    return Mutant(f"transposed: {name}", "_conv.conv_transpose", old, new, case, cause)


def of_border(name: str, old: str, new: str, mode: str = "reflect", cause: str | None = None) -> Mutant:
    case = conv((3, 5, 6, 2), (3, 2, 2, 4), padding=((2, 1), (1, 3)), padding_mode=mode)
    return Mutant(f"border: {name}", "_conv.borders", old, new, case, cause)


def after(line: str, change: str) -> tuple[str, str]:
    """The line, and the line with another after it."""
    return line, line + f"    {change}\n"


def not_flipped(text: str) -> str:
    """The text with a layout that does not flip the kernel."""
    return re.sub(r"layout\.(\w+_kernel)", r"layout._replace(flip_kernel=False).\1", text)


def of_bfloat16(line: str) -> str:
    """The line with both operands in bfloat16, in which it is summed then."""
    return re.sub(r" (x|dy|kernel)([,)])", r" \1.astype('bfloat16')\2", line)


SIGN, FACTOR, ZERO = "the sign: got is", "a constant factor: got is ", "zero: nothing comes back"

RULES = [
    # Signs and factors.
    of_rule("dx: sign", *after(DX, "dx = -dx"), cause=SIGN),
    of_rule("dkernel: sign", *after(DKERNEL, "dkernel = -dkernel"), cause=SIGN),
    of_rule("dbias: sign", DBIAS, f"-{DBIAS}", cause=SIGN),
    of_rule("dx: zero", *after(DX, "dx = 0 * dx"), cause=ZERO),
    of_rule("dkernel: zero", *after(DKERNEL, "dkernel = 0 * dkernel"), cause=ZERO),
    of_rule("dbias: forgotten", f"None if bias is None else {DBIAS}", "None", cause=ZERO),
    of_rule("dkernel: twice", *after(DKERNEL, "dkernel = 2 * dkernel"), cause=FACTOR + "2 (2"),
    of_rule("dkernel: mean over the batch", *after(DKERNEL, "dkernel = dkernel / len(x)"), cause="1/m with m = 5"),
    of_rule("dkernel: m−1", *after(DKERNEL, "dkernel = dkernel / (len(x) - 1)"), cause="1/(m−1) with m = 5"),
    of_rule("dkernel: unbiased", *after(DKERNEL, "dkernel *= len(x) / (len(x) - 1)"), cause="m/(m−1) with m = 5"),
    of_rule(
        "dbias: mean",
        DBIAS,
        DBIAS.replace(".as", " / (dy.size // dy.shape[-1])).as").replace("ch", "(ch"),
        cause="1/m with m = 50",
    ),
    of_rule("dx: by the number of groups", *after(DX, "dx = dx * spec.geometry.groups"), SEVERAL_GROUPS, FACTOR + "2"),
    # Sums.
    of_rule("dbias: the first image alone", DBIAS, DBIAS.replace("dy", "dy[:1]"), cause="missing sum over axis 0"),
    of_rule(
        "dkernel: the first image alone",
        DKERNEL,
        DKERNEL.replace("x, dy", "x[:1], dy[:1]"),
        cause="missing sum over axis 0",
    ),
    of_rule("dkernel: without the last image", DKERNEL, DKERNEL.replace("x, dy", "x[:-1], dy[:-1]")),
    of_rule("dbias: not summed", DBIAS, "dy", cause="a missing sum over a broadcast axis"),
    of_rule("dbias: over the wrong axes", DBIAS, DBIAS.replace("dy", "dy, 1"), CUBE, "axes 1 and 3 are exchanged"),
    # Flips and transpositions.
    of_rule("dx: kernel not flipped", OPERANDS, not_flipped(OPERANDS), FLIPPED, "flipped along"),
    of_rule("dkernel: not flipped back", RESULTS, not_flipped(RESULTS), FLIPPED, "flipped along"),
    of_rule(
        "dx: in and out swapped",
        DX,
        DX.replace("kernel)", "kernel.swapaxes(-1, -2))"),
        SQUARE,
        "transposed: axes 2 and 3",
    ),
    of_rule(
        "dx: height and width of the kernel swapped",
        DX,
        DX.replace("kernel)", "kernel.swapaxes(0, 1))"),
        SQUARE,
        "transposed: axes 0 and 1",
    ),
    of_rule(
        "dkernel: height and width swapped",
        *after(DKERNEL, "dkernel = dkernel.swapaxes(0, 1)"),
        SQUARE,
        "transposed: axes 0 and 1",
    ),
    of_rule(
        "dkernel: in and out swapped",
        *after(DKERNEL, "dkernel = dkernel.swapaxes(2, 3)"),
        SQUARE,
        "transposed: axes 2 and 3",
    ),
    of_rule("dx: height and width swapped", *after(DX, "dx = dx.swapaxes(1, 2)"), SQUARE, "transposed: axes 1 and 2"),
    of_rule("dx: flipped", *after(DX, "dx = dx[:, ::-1]"), cause="flipped along axis 1"),
    of_rule("dx and dkernel swapped", RESULTS, "    return dkernel, dx, dbias\n", CUBE, "swapped"),
    # Windows.
    of_rule(
        "dx: last row dropped",
        *after(
            DX,
            "dx = dx * (1 - 1 * (lax.iota(int, dx.shape[1]) == dx.shape[1] - 1).astype(dx.dtype))[None, :, None, None]",
        ),
        cause="it is zero at [3] of the 4 indices of axis 1",
    ),
    of_rule("dx: rows that no window reaches dropped", *after(DX, "dx = dx[:, :-1]"), UNREACHED_ROW, "rows"),
    # Borders.
    of_border("not folded back", "else dx\n    return dx", "else dx\n    return dx * 0.5"),
    of_border("reflect: below dropped", "placed(jnp.flip(below, axis), 1)", "0 * placed(below, 1)"),
    of_border("reflect: below not flipped", "jnp.flip(below, axis)", "below"),
    of_border("reflect: above not flipped", "jnp.flip(above, axis)", "above"),
    of_border("reflect: above at the edge itself", "size - 1 - high)", "size - high)"),
    of_border("circular: sides swapped", "placed(below, size - low)", "placed(below, 0)", "circular"),
    of_border(
        "circular: above dropped",
        "placed(below, size - low) + placed(above, 0)",
        "placed(below, size - low)",
        "circular",
    ),
    of_border("replicate: above dropped", "placed(last, size - 1)", "0 * placed(last, size - 1)", "replicate"),
    of_border("replicate: the mean", "part.sum(axis", "part.mean(axis", "replicate"),
    # Precision and dtypes.
    of_rule(
        "residual x in bfloat16",
        RESIDUALS,
        RESIDUALS.replace("(x,", "(x.astype('bfloat16').astype(x.dtype),"),
        cause="bfloat16",
    ),
    of_rule(
        "residual kernel in bfloat16",
        RESIDUALS,
        RESIDUALS.replace("x, kernel,", "x, kernel.astype('bfloat16').astype(x.dtype),"),
        cause="bfloat16",
    ),
    of_rule(
        "dkernel in float16", *after(DKERNEL, "dkernel = dkernel.astype('float16').astype(x.dtype)"), cause="float16"
    ),
    of_rule("dkernel: summed in bfloat16", DKERNEL, of_bfloat16(DKERNEL), cause="bfloat16"),
    of_rule("dx: summed in bfloat16", DX, of_bfloat16(DX), cause="bfloat16"),
    of_rule(
        "dbias: summed in bfloat16", DBIAS, "dy.astype('bfloat16').sum((0, 1, 2)).astype(bias.dtype)", cause="bfloat16"
    ),
    of_rule("dbias in float32", DBIAS, "channel_sum(dy)", dtype=jnp.bfloat16),
    # Transposed.
    of_transposed_rule("dx: sign", *after(DX_T, "dx = -dx"), TRANSPOSED, SIGN),
    of_transposed_rule("dkernel: sign", *after(DKERNEL_T, "dkernel = -dkernel"), TRANSPOSED, SIGN),
    of_transposed_rule(
        "dkernel: in and out swapped",
        *after(DKERNEL_T, "dkernel = dkernel.swapaxes(2, 3)"),
        TRANSPOSED,
        "transposed: axes 2 and 3",
    ),
    of_transposed_rule(
        "dx: kernel not flipped",
        OPERANDS_T,
        not_flipped(OPERANDS_T),
        TRANSPOSED_FLIPPED,
        "flipped along",
    ),
    of_transposed_rule(
        "dkernel: not flipped back",
        RESULTS,
        not_flipped(RESULTS),
        TRANSPOSED_FLIPPED,
        "flipped along",
    ),
    of_transposed_rule(
        "dkernel: roles not swapped", DKERNEL_T, DKERNEL_T.replace("dy, x", "x, dy"), TRANSPOSED_FLIPPED
    ),
    # Under transformations alone.
    of_rule("dx: not differentiated again", *after(DX, "dx = lax.stop_gradient(dx)"), transforms=("grad of grad",)),
]
