"""Mutants of the rules of several operations at once: batch norm with ReLU, and with ReLU and convolution."""

from tests.norm.mutants import FACTOR, IGNORED, SIGN, ZERO, in_bfloat16
from tests.support.cases import Case, fused_conv_case, norm_case
from tests.support.mutants import Mutant

RELU = norm_case("batch_norm_relu", (9, 5), -1, (1, 1))
BLOCK = fused_conv_case((3, 5, 4, 2), ((2, 1), 1, 1), 3, (1, 1, 1), padding="SAME")
MASKED_BLOCK = fused_conv_case((3, 5, 4, 2), ((2, 1), 1, 1), 3, (1, 1, 1), where="random")

POSITIVE = "return kept(dy, _affine(x_hat, vectors) > 0) if config.rectified else dy"
RELU_OF_SUMS = "        dy = _through_relu(config, dy, x_hat, vectors)\n        return"
RELU_OF_DX = "    dy = _through_relu(config, dy, x_hat, vectors)\n    dx_hat"
HIDDEN = "hidden = normalised(norm, of_norm)"
CONV_BWD = "conv_bwd(conv, ConvResiduals(hidden,"
PULLBACK = "pullback(norm, of_norm, dhidden, dmoments.mean, dmoments.var)"
RETURNED = "    return dx, dgamma, dbeta, dkernel, dbias, None\n"
ZERO_OF_DY = "zero = 0 * jnp.nan_to_num(jnp.max(lax.stop_gradient(dy), initial=0))"


def of_relu(name: str, old: str, new: str, cause: str | None = None, case: Case = RELU) -> Mutant:
    return Mutant(f"relu: {name}", "_norm.maps", old, new, case, cause)


def of_block(name: str, old: str, new: str, cause: str | None = None, case: Case = BLOCK) -> Mutant:
    return Mutant(f"block: {name}", "_fused.batch_norm_relu_conv", old, new, case, cause)


def returned(**changed: str) -> tuple[str, str]:
    new = RETURNED
    for name, change in changed.items():
        new = new.replace(f" {name},", f" {change},")
    return RETURNED, new


FUSED = [
    # `>=` for `>` is no mistake that a derivative shows: where z is 0 the ReLU has none.
    of_relu("ReLU's mask missing", POSITIVE, "return dy"),
    of_relu("ReLU's mask missing from dx", RELU_OF_DX, "    dy = widened(dy)\n    dx_hat"),
    of_relu("ReLU's mask missing from the sums", RELU_OF_SUMS, "        dy = widened(dy)\n        return"),
    of_relu("ReLU's mask reversed", POSITIVE, POSITIVE.replace(">", "<")),
    of_relu("ReLU's mask of x̂", POSITIVE, POSITIVE.replace("_affine(x_hat, vectors)", "x_hat")),
    of_relu("ReLU's mask without β", POSITIVE, POSITIVE.replace("vectors)", "vectors._replace(beta=None))")),
    of_relu("ReLU's mask without γ", POSITIVE, POSITIVE.replace("vectors)", "vectors._replace(gamma=None))")),
    of_relu("ReLU twice its slope", POSITIVE, POSITIVE.replace("kept(dy,", "kept(2 * dy,"), FACTOR + "2 "),
    of_block("h without ReLU", HIDDEN, "hidden = normalised(norm._replace(rectified=False), of_norm)"),
    of_block("dK from x", CONV_BWD, CONV_BWD.replace("hidden", "residuals.norm.x")),
    of_block(
        "dK from dh",
        "return dx, dgamma",
        "dkernel = conv_bwd(conv, ConvResiduals(dhidden, residuals.kernel, None), dy)[1]\n    return dx, dgamma",
    ),
    of_block("h in bfloat16", HIDDEN, f"{HIDDEN}\n    hidden = {in_bfloat16('hidden')}", "bfloat16"),
    of_block(
        "dh in bfloat16",
        "dx, dgamma, dbeta = pull",
        f"dhidden = {in_bfloat16('dhidden')}\n    dx, dgamma, dbeta = pull",
        "bfloat16",
    ),
    of_block("h: mask ignored", HIDDEN, "hidden = normalised(norm, of_norm._replace(where=None))", None, MASKED_BLOCK),
    of_block(
        "dx: mask ignored", PULLBACK, PULLBACK.replace("of_norm", "of_norm._replace(where=None)"), None, MASKED_BLOCK
    ),
    of_block("moments' cotangents ignored", PULLBACK, PULLBACK.replace("dmoments.", "0 * dmoments."), IGNORED),
    of_block("dmean ignored", PULLBACK, PULLBACK.replace("dmoments.mean", "0 * dmoments.mean"), IGNORED),
    of_block("dvar ignored", PULLBACK, PULLBACK.replace("dmoments.var", "0 * dmoments.var"), IGNORED),
    of_block("dmean with dvar", PULLBACK, PULLBACK.replace("mean, dmoments.var", "var, dmoments.mean")),
    of_block("dy ignored by batch norm", PULLBACK, PULLBACK.replace("dhidden", "0 * dhidden"), IGNORED),
    of_block("ReLU's mask missing", PULLBACK, PULLBACK.replace("norm,", "norm._replace(rectified=False),", 1)),
    of_block("dK: sign", *returned(dkernel="-dkernel"), SIGN),
    of_block("dγ: zero", *returned(dgamma="0 * dgamma"), ZERO),
    of_block("dbias: twice", *returned(dbias="2 * dbias"), FACTOR + "2 "),
    of_block("dγ with dβ", *returned(dgamma="dbeta", dbeta="dgamma"), "swapped: this is the cotangent of"),
    of_block("a zero that is none", ZERO_OF_DY, ZERO_OF_DY.replace("0 *", "1e-2 *")),
    of_block(
        "a NaN that spreads", ZERO_OF_DY, "zero = 0 * jnp.max(lax.stop_gradient(dy), initial=0)", "across an axis"
    ),
]
