"""Mutants whose value is another as well. There is no derivative to compare then: the check says so, and stops."""

from tests.cases import Case
from tests.mutants import Mutant
from tests.mutants_of_convolution import FLIPPED, PLAIN, not_flipped
from tests.mutants_of_fused import BLOCK, RELU
from tests.mutants_of_normalisation import INFERENCE, LARGE_EPSILON, MASKED, MEMBERS, ROWS, SQUARE, in_bfloat16

STATISTICS = "found = statistics(x, where, config.axis, config.devices)"
Y = "return kept(jax.nn.relu(y) if config.rectified else y, where)"
SHIFTED = "shifted = kept(widened(x) - pivot, where)"
SHIFT = "widened(x) - pivot"
Y_OF_CONV = "    y = convolution(spec, layout.canonical_x(x), layout.canonical_kernel(kernel))"
MERGED = "return own if devices is None else _merged(devices, own)"


def of(module: str, name: str, old: str, new: str, case: Case) -> Mutant:
    return Mutant(f"forward: {name}", module, old, new, case)


FORWARDS = [
    of("_norm.maps", "statistics over the wrong axis", STATISTICS, STATISTICS.replace("config.axis", "0"), SQUARE),
    of("_norm.maps", "ε dropped", "found.var + config.epsilon", "found.var", LARGE_EPSILON),
    of("_norm.inference", "inference: ε dropped", "+ config.epsilon", "", INFERENCE),
    of("_norm.maps", "mask ignored in the statistics", STATISTICS, STATISTICS.replace("where", "None"), MASKED),
    of("_norm.maps", "mask ignored in y", Y, Y.replace("where", "None"), MASKED),
    of("_norm.maps", "ReLU dropped", Y, Y.replace("jax.nn.relu(y) if config.rectified else y", "y"), RELU),
    of("_fused.batch_norm_relu_conv", "block: conv of x", "conv_fwd(conv, hidden,", "conv_fwd(conv, x,", BLOCK),
    of(
        "_norm.moments",
        "m−1",
        "at_least_one(self.count, self.squares)",
        "(self.count - 1).astype(self.squares.dtype)",
        ROWS,
    ),
    of("_norm.moments", "all-reduce missing", MERGED, "return own", MEMBERS),
    of("_norm.moments", "m of one device", "count = counts.sum(0, dtype=jnp.int32)", "count = own.count", MEMBERS),
    of("_norm.moments", "in bfloat16", SHIFTED, SHIFTED.replace(SHIFT, in_bfloat16(f"({SHIFT})")), ROWS),
    of("_conv.conv", "kernel not flipped", Y_OF_CONV, not_flipped(Y_OF_CONV), FLIPPED),
    of("_conv.conv", "bias dropped", "y if bias is None else y + along_channels(bias, y)", "y", PLAIN),
]
