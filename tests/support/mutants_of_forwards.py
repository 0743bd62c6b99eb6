"""Mutants whose value is another as well. There is no derivative to compare then: the check says so, and stops."""

from tests.conv.mutants import FLIPPED, PLAIN
from tests.fused.mutants import BLOCK, RELU
from tests.norm.mutants import INFERENCE, LARGE_EPSILON, MASKED, MEMBERS, ROWS, SQUARE, in_bfloat16
from tests.support.cases import Case
from tests.support.mutants import Mutant

STATISTICS = "found = statistics(x, where, config.axis, config.devices)"
Y = "return kept(jax.nn.relu(y) if config.rectified else y, where)"
SHIFTED = "shifted = kept(widened(x) - pivot, where)"
SHIFT = "widened(x) - pivot"
Y_OF_CONV = "    y = convolve(*how, layout.canonical_x(x), layout.canonical_kernel(kernel, flip=flip))"
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
    of("_conv.rules", "kernel not flipped", Y_OF_CONV, Y_OF_CONV.replace("flip=flip", "flip=False"), FLIPPED),
    of("_conv.rules", "bias dropped", "return y if bias is None else y + along_channels(bias, y)", "return y", PLAIN),
]
