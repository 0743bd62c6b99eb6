"""Mutants of the rules of several operations at once: batch norm with ReLU, and with ReLU and convolution."""

from tests.norm.mutants import FACTOR, IGNORED, SIGN, ZERO, in_bfloat16
from tests.support.cases import Case, fused_conv_case, norm_case
from tests.support.mutants import Mutant

RELU = norm_case("batch_norm_relu", (9, 5), -1, (1, 1))
BLOCK = fused_conv_case((3, 5, 4, 2), ((2, 1), 1, 1), 3, (1, 1, 1), padding="SAME")
MASKED_BLOCK = fused_conv_case((3, 5, 4, 2), ((2, 1), 1, 1), 3, (1, 1, 1), where="random")

POSITIVE = "return dy if options.activation is None else apply_mask(dy, _scale_and_shift(x_hat, vectors) > 0)"
RELU_OF_SUMS = "        dz = _through_activation(options, dy, x_hat, vectors)\n        return"
RELU_OF_DX = "    dz = _through_activation(options, dy, x_hat, vectors)\n    dx_hat"
HIDDEN = "hidden = y_from_residuals(norm, norm_residuals)"
CONV_BWD = "conv_bwd(conv, ConvResiduals(hidden,"
BATCH_NORM_BWD = "batch_norm_bwd(norm, norm_residuals, (dhidden, dmoments))"
# The options of the same batch norm without an activation.
WITHOUT_RELU = "BatchNormOptions(axis=norm.axis, epsilon=norm.epsilon, collectives=norm.collectives)"
RETURNED = "    return dx, dgamma, dbeta, dkernel, dbias, dwhere\n"
ZERO_OF_DY = "zero = 0 * jnp.nan_to_num(jnp.max(lax.stop_gradient(dy), initial=0))"


def of_relu(name: str, old: str, new: str, cause: str | None = None, case: Case = RELU) -> Mutant:
    return Mutant(f"relu: {name}", "_norm.batch_norm", old, new, case, cause)


def of_block(name: str, old: str, new: str, cause: str | None = None, case: Case = BLOCK) -> Mutant:
    return Mutant(f"block: {name}", "_fused.batch_norm_relu_conv", old, new, case, cause)


def returned(**changed: str) -> tuple[str, str]:
    new = RETURNED
    for name, change in changed.items():
        new = new.replace(f" {name},", f" {change},")
    return RETURNED, new


def with_dmoments(mean: str, var: str) -> str:
    return BATCH_NORM_BWD.replace("dmoments", f"dmoments._replace(mean={mean}, var={var})")


FUSED = [
    # `>=` for `>` is no mistake that a derivative shows: where z is 0 the ReLU has none.
    of_relu("ReLU's mask missing", POSITIVE, "return dy"),
    of_relu("ReLU's mask missing from dx", RELU_OF_DX, "    dz = widened(dy)\n    dx_hat"),
    of_relu("ReLU's mask missing from the sums", RELU_OF_SUMS, "        dz = widened(dy)\n        return"),
    of_relu("ReLU's mask reversed", POSITIVE, POSITIVE.replace(">", "<")),
    of_relu("ReLU's mask of x̂", POSITIVE, POSITIVE.replace("_scale_and_shift(x_hat, vectors)", "x_hat")),
    of_relu("ReLU's mask without β", POSITIVE, POSITIVE.replace("vectors)", "vectors._replace(beta=None))")),
    of_relu("ReLU's mask without γ", POSITIVE, POSITIVE.replace("vectors)", "vectors._replace(gamma=None))")),
    of_relu("ReLU twice its slope", POSITIVE, POSITIVE.replace("apply_mask(dy,", "apply_mask(2 * dy,"), FACTOR + "2 "),
    of_block("h without ReLU", HIDDEN, f"hidden = y_from_residuals({WITHOUT_RELU}, norm_residuals)"),
    of_block("dK from x", CONV_BWD, CONV_BWD.replace("hidden", "residuals.norm.x")),
    of_block(
        "dK from dh",
        "return dx, dgamma",
        "dkernel = conv_bwd(conv, ConvResiduals(dhidden, residuals.kernel, None), dy)[1]\n    return dx, dgamma",
    ),
    of_block("h in bfloat16", HIDDEN, f"{HIDDEN}\n    hidden = {in_bfloat16('hidden')}", "bfloat16"),
    of_block(
        "dh in bfloat16",
        "dx, dgamma, dbeta, dwhere = batch_norm_bwd",
        f"dhidden = {in_bfloat16('dhidden')}\n    dx, dgamma, dbeta, dwhere = batch_norm_bwd",
        "bfloat16",
    ),
    of_block(
        "h: mask ignored",
        HIDDEN,
        "hidden = y_from_residuals(norm, norm_residuals._replace(where=None))",
        None,
        MASKED_BLOCK,
    ),
    of_block(
        "dx: mask ignored",
        BATCH_NORM_BWD,
        BATCH_NORM_BWD.replace("norm_residuals", "norm_residuals._replace(where=None)"),
        None,
        MASKED_BLOCK,
    ),
    of_block(
        "moments' cotangents ignored", BATCH_NORM_BWD, with_dmoments("0 * dmoments.mean", "0 * dmoments.var"), IGNORED
    ),
    of_block("dmean ignored", BATCH_NORM_BWD, with_dmoments("0 * dmoments.mean", "dmoments.var"), IGNORED),
    of_block("dvar ignored", BATCH_NORM_BWD, with_dmoments("dmoments.mean", "0 * dmoments.var"), IGNORED),
    of_block("dmean with dvar", BATCH_NORM_BWD, with_dmoments("dmoments.var", "dmoments.mean")),
    of_block("dy ignored by batch norm", BATCH_NORM_BWD, BATCH_NORM_BWD.replace("dhidden", "0 * dhidden"), IGNORED),
    of_block("ReLU's mask missing", BATCH_NORM_BWD, BATCH_NORM_BWD.replace("norm,", f"{WITHOUT_RELU},", 1)),
    of_block("dK: sign", *returned(dkernel="-dkernel"), SIGN),
    of_block("dγ: zero", *returned(dgamma="0 * dgamma"), ZERO),
    of_block("dbias: twice", *returned(dbias="2 * dbias"), FACTOR + "2 "),
    of_block("dγ with dβ", *returned(dgamma="dbeta", dbeta="dgamma"), "swapped: this is the cotangent of"),
    of_block("a zero that is none", ZERO_OF_DY, ZERO_OF_DY.replace("0 *", "1e-2 *")),
    of_block(
        "a NaN that spreads",
        ZERO_OF_DY,
        "zero = 0 * jnp.max(lax.stop_gradient(dy), initial=0)",
        "over an axis whose entries",
    ),
]
