"""Mutants whose value is another as well. There is no derivative to compare then: the check says so, and stops."""

from tests.cases import Case
from tests.mutants import Mutant
from tests.mutants_of_convolution import FLIPPED, PLAIN
from tests.mutants_of_fused import BLOCK, RELU
from tests.mutants_of_normalisation import INFERENCE, LARGE_EPSILON, MASKED, MEMBERS, ROWS, SQUARE, in_bfloat16

STATISTICS = "statistics = batch_statistics(x, where, options.axis, options.collectives)"
Y = "return apply_mask(z if options.activation is None else options.activation(z), where)"
SHIFTED = "difference = apply_mask(widened(x) - pivot, where)"
SHIFT = "widened(x) - pivot"
Y_OF_CONV = "    y = convolve(*how, layout.canonical_x(x), layout.canonical_kernel(kernel, flip=flip))"
MERGED = "return local if collectives is None else _merge_devices(collectives, local)"


def of(module: str, name: str, old: str, new: str, case: Case) -> Mutant:
    return Mutant(f"forward: {name}", module, old, new, case)


FORWARDS = [
    of(
        "_norm.batch_norm",
        "statistics over the wrong axis",
        STATISTICS,
        STATISTICS.replace("options.axis", "0"),
        SQUARE,
    ),
    of("_norm.batch_norm", "ε dropped", "var + options.epsilon", "var", LARGE_EPSILON),
    of("_norm.inference", "inference: ε dropped", "+ options.epsilon", "", INFERENCE),
    of("_norm.batch_norm", "mask ignored in the statistics", STATISTICS, STATISTICS.replace("where", "None"), MASKED),
    of("_norm.batch_norm", "mask ignored in y", Y, Y.replace("where", "None"), MASKED),
    of(
        "_norm.batch_norm",
        "ReLU dropped",
        Y,
        Y.replace("z if options.activation is None else options.activation(z)", "z"),
        RELU,
    ),
    of("_fused.batch_norm_relu_conv", "block: conv of x", "conv_fwd(conv, hidden,", "conv_fwd(conv, x,", BLOCK),
    of(
        "_norm.statistics",
        "m−1",
        "as_divisor(self.count, self.squares.dtype)",
        "(self.count - 1).astype(self.squares.dtype)",
        ROWS,
    ),
    of("_norm.statistics", "all-reduce missing", MERGED, "return local", MEMBERS),
    of("_norm.statistics", "m of one device", "count = counts.sum(0, dtype=jnp.int32)", "count = local.count", MEMBERS),
    of("_norm.statistics", "in bfloat16", SHIFTED, SHIFTED.replace(SHIFT, in_bfloat16(f"({SHIFT})")), ROWS),
    of("_conv.rules", "kernel not flipped", Y_OF_CONV, Y_OF_CONV.replace("flip=flip", "flip=False"), FLIPPED),
    of("_conv.rules", "bias dropped", "return y if bias is None else y + along_channels(bias, y)", "return y", PLAIN),
]
