"""Mutants whose value is another as well: there is no derivative to compare then, and the check says so."""

from tests.norm.mutants import INFERENCE, LARGE_EPSILON, MASKED, MEMBERS, ROWS, SQUARE, in_bfloat16
from tests.support.mutants import forward

STATISTICS = "found = statistics(x, where, config.axis, config.devices)"
Y = "return kept(jax.nn.relu(y) if config.rectified else y, where)"
SHIFTED = "shifted = kept(widened(x) - pivot, where)"
SHIFT = "widened(x) - pivot"
MERGED = "return own if devices is None else _merged(devices, own)"
FORWARDS = [
    forward("_norm.maps", "statistics over the wrong axis", STATISTICS, STATISTICS.replace("config.axis", "0"), SQUARE),
    forward("_norm.maps", "ε dropped", "found.var + config.epsilon", "found.var", LARGE_EPSILON),
    forward("_norm.inference", "inference: ε dropped", "+ config.epsilon", "", INFERENCE),
    forward("_norm.maps", "mask ignored in the statistics", STATISTICS, STATISTICS.replace("where", "None"), MASKED),
    forward("_norm.maps", "mask ignored in y", Y, Y.replace("where", "None"), MASKED),
    forward(
        "_norm.moments",
        "m−1",
        "at_least_one(self.count, self.squares)",
        "(self.count - 1).astype(self.squares.dtype)",
        ROWS,
    ),
    forward("_norm.moments", "all-reduce missing", MERGED, "return own", MEMBERS),
    forward("_norm.moments", "m of one device", "count = counts.sum(0, dtype=jnp.int32)", "count = own.count", MEMBERS),
    forward("_norm.moments", "in bfloat16", SHIFTED, SHIFTED.replace(SHIFT, in_bfloat16(f"({SHIFT})")), ROWS),
]
