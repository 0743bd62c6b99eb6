"""Mistakes planted in the checker itself, each with the probe that tells it from the right one."""

from typing import NamedTuple


class CheckerMutant(NamedTuple):
    name: str
    module: str
    old: str
    new: str
    probe: str

    def __str__(self) -> str:
        return self.name


MUTANTS = [
    CheckerMutant("nothing is compared", "precision", "    error = np.abs(", "    error = 0 * np.abs(", "sign"),
    CheckerMutant("nothing is usable", "precision", "usable = np.isfinite(want)", "usable = np.isnan(want)", "sign"),
    CheckerMutant(
        "the tighter tolerance",
        "precision",
        "max(4 * autodiff, floor)",
        "min(4 * autodiff, floor)",
        "right to rounding",
    ),
    CheckerMutant(
        "the floor has no end",
        "precision",
        "min(8 * leaf.eps * np.sqrt(size), 0.25)",
        "8 * leaf.eps * np.sqrt(size)",
        "zero in bfloat16",
    ),
    CheckerMutant(
        "tolerance from ours", "precision", "score.autodiff_error for score", "score.error for score", "sign"
    ),
    CheckerMutant(
        "the first leaf alone", "collector", "enumerate(leaves)", "enumerate(leaves[:1])", "sign of the last"
    ),
    CheckerMutant("error and budget swapped", "collector", ".error <= allowed:", ".error >= allowed:", "right"),
    CheckerMutant(
        "truth in float32", "oracle", "with jax.enable_x64(True):", "with jax.enable_x64(False):", "right in float64"
    ),
    CheckerMutant(
        "constant cotangents",
        "cotangents",
        "jnp.asarray(generator.standard_normal(y.shape), y.dtype)",
        "jnp.ones(y.shape, y.dtype)",
        "zero",
    ),
    CheckerMutant("zero is not compared", "gradients", "(got != 0) & (", "(got != got) & (", "offset"),
    CheckerMutant(
        "linearity is not compared", "gradients", "trial_against(label, got,", "trial_against(label, want,", "offset"
    ),
    CheckerMutant(
        "runs that agree fail", "gradients", "first.tobytes() != second", "first.tobytes() == second", "right"
    ),
    CheckerMutant("dtypes are not compared", "structure", "if got.dtype != dtype:", "if False:", "dtype"),
    CheckerMutant(
        "the value under differentiation is not compared",
        "values",
        "        if score.error > allowed:\n            collector",
        "        if False:\n            collector",
        "value",
    ),
    CheckerMutant(
        "values are not compared",
        "values",
        "        if score.error > allowed:\n            raise",
        "        if False:\n            raise",
        "other function",
    ),
    CheckerMutant("any order will do", "taylor", "order < 1.5", "order < 0.5", "reference"),
    CheckerMutant(
        "any difference will do",
        "neighbourhood",
        "<= 4 * uncertainty",
        "<= 4 * uncertainty + np.inf",
        "reference beside kinks",
    ),
    CheckerMutant(
        "no difference will do", "neighbourhood", "<= 4 * uncertainty", "< 0 * uncertainty", "right near a singularity"
    ),
    CheckerMutant(
        "a kink is a jump",
        "neighbourhood",
        "jumps, axis=0) & ~np.any(kinks",
        "kinks, axis=0) & np.any(kinks",
        "right at kinks",
    ),
    CheckerMutant(
        "jumps are not compared", "neighbourhood", "outside > 10 *", "outside > np.inf *", "reference at zero"
    ),
    CheckerMutant(
        "large cotangents are not tried", "gradients", "return half, -half", "return -half, -half", "clipped"
    ),
    CheckerMutant(
        "small cotangents are not tried", "gradients", "return half, -half", "return half, half", "small ones lost"
    ),
    CheckerMutant("purity is not compared", "purity", "collector.judge([trial],", "collector.judge([],", "impure"),
    CheckerMutant(
        "a leak passes", "collector", "if isinstance(error, jax.errors.UnexpectedTracerError):", "if False:", "leak"
    ),
    CheckerMutant("NaN is expected to spread", "isolation", "if mine - theirs:", "if theirs - mine:", "spread"),
    CheckerMutant(
        "transformations are not compared", "transformations", "collector.judge(trials,", "collector.judge((),", "vmap"
    ),
    CheckerMutant(
        "second derivatives are not compared", "derivatives", "collector.judge(trials,", "collector.judge((),", "second"
    ),
    CheckerMutant(
        "tangents are not compared with cotangents",
        "transposition",
        "gap = np.abs(forward.got - reverse.got)",
        "gap = 0 * np.abs(forward.got - reverse.got)",
        "not a transpose",
    ),
    CheckerMutant(
        "the same mistake in both modes is a disagreement",
        "transposition",
        "gap = np.abs(forward.got - reverse.got)",
        "gap = np.abs(forward.got - reverse.want)",
        "sign of a tangent",
    ),
    CheckerMutant(
        "what is not supported passes",
        "collector",
        "        if transformation in self.requested:\n",
        "        if False:\n",
        "jvp",
    ),
]
