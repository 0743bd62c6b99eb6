"""Mutants that change the value as well. The check then reports the value, and compares no derivative."""

from functools import partial

from tests.norm.mutants import INFERENCE, LARGE_EPSILON, MASKED, MEMBERS, ROWS, SQUARE, in_bfloat16
from tests.support.mutants import forward

STATISTICS = "statistics = batch_statistics(operands.x, operands.where, options.axis, options.collectives)"
Y = "return apply_mask(activated(options.activation, z, constants), where)"
SHIFTED = "difference = apply_mask(widened(x) - pivot, where)"
SHIFT = "widened(x) - pivot"
MERGED = "return local if collectives is None else _merge_devices(collectives, local)"

of_batch_norm = partial(forward, "_norm.batch_norm")
of_statistics = partial(forward, "_norm.statistics")

FORWARDS = [
    of_batch_norm("statistics over the wrong axis", STATISTICS, STATISTICS.replace("options.axis", "0"), SQUARE),
    of_batch_norm("ε dropped", "var + options.epsilon", "var", LARGE_EPSILON),
    forward("_norm.inference", "inference: ε dropped", "+ options.epsilon", "", INFERENCE),
    of_batch_norm("mask ignored in the statistics", STATISTICS, STATISTICS.replace("operands.where", "None"), MASKED),
    of_batch_norm("mask ignored in y", Y, Y.replace("where", "None"), MASKED),
    of_statistics(
        "m−1", "as_divisor(self.count, self.squares.dtype)", "(self.count - 1).astype(self.squares.dtype)", ROWS
    ),
    of_statistics("all-reduce missing", MERGED, "return local", MEMBERS),
    of_statistics("m of one device", "count = counts.sum(0, dtype=jnp.int32)", "count = local.count", MEMBERS),
    of_statistics("in bfloat16", SHIFTED, SHIFTED.replace(SHIFT, in_bfloat16(f"({SHIFT})")), ROWS),
]
