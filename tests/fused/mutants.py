"""Mutants of the rules of several operations at once: batch norm with ReLU, and with ReLU and convolution."""

import re

from tests.norm.mutants import FACTOR, IGNORED, SIGN, ZERO, in_bfloat16
from tests.support.cases import Case, act_case, fused_conv_case, norm_case
from tests.support.mutants import Mutant

RELU = norm_case("batch_norm_relu", (9, 5), -1, (1, 1))
BLOCK = fused_conv_case((3, 5, 4, 2), ((2, 1), 1, 1), 3, (1, 1, 1), padding="SAME")
MASKED_BLOCK = fused_conv_case((3, 5, 4, 2), ((2, 1), 1, 1), 3, (1, 1, 1), where="random")

SILU = act_case((9, 5), -1, "silu")
PRELU = act_case((9, 5), -1, "prelu")
MASKED_SIGMOID = act_case((9, 5), -1, "sigmoid", where="random")
RETURNING_BLOCK = Case(
    "batch_norm_act_conv",
    {"x": (3, 5, 4, 2), "gamma": (2,), "beta": (2,), "kernel": (2, 1, 2, 3), "residual": (3, 5, 4, 2)},
    {"activation": "silu", "padding": "SAME", "return_activation": True},
)

PULLBACK = "dz, *dconstants = pullback(dy)"
ARGUMENT = "z = _argument(x_hat, vectors, residual, where)\n    dz, dconstants"
DZ_OF_SUMS = "channel_sums(terms, x, dz, where,"
DZ_OF_DX = "dx_hat = dz if vectors.gamma is None else dz * vectors.gamma"
DRESIDUAL = "(dz, residual))"
HIDDEN = "hidden = y_from_residuals(norm, norm_residuals)"
UNMASKED = "norm_residuals._replace(operands=norm_residuals.operands._replace(where=None))"
CONV_BWD = "conv_bwd(conv, ConvResiduals(hidden,"
BATCH_NORM_BWD = "batch_norm_bwd(norm, norm_residuals, (dhidden, dmoments))"
# The options of the same batch norm without an activation.
WITHOUT_RELU = "BatchNormOptions(axis=norm.axis, epsilon=norm.epsilon, collectives=norm.collectives)"
RETURNED = "    return doperands, dkernel, dbias\n"
ZERO_OF_DY = "zero = 0 * jnp.nan_to_num(jnp.max(lax.stop_gradient(dy), initial=0))"


def of_relu(name: str, old: str, new: str, cause: str | None = None, case: Case = RELU) -> Mutant:
    return Mutant(f"relu: {name}", "_norm.batch_norm", old, new, case, cause)


def of_activation(name: str, old: str, new: str, cause: str | None = None, case: Case = RELU) -> Mutant:
    return Mutant(f"activation: {name}", "_norm.activation", old, new, case, cause)


def of_block(name: str, old: str, new: str, cause: str | None = None, case: Case = BLOCK) -> Mutant:
    return Mutant(f"block: {name}", "_fused.batch_norm_act_conv", old, new, case, cause)


def returned(**changed: str) -> tuple[str, str]:
    new = RETURNED
    for name, change in changed.items():
        new = re.sub(rf"\b{name}\b", change, new, count=1)
    return RETURNED, new


def with_dmoments(mean: str, var: str) -> str:
    return BATCH_NORM_BWD.replace("dmoments", f"dmoments._replace(mean={mean}, var={var})")


FUSED = [
    of_activation("its derivative missing", PULLBACK, "_, *dconstants = pullback(dy)\n    dz = dy"),
    of_activation("its derivative at −z", "jax.vjp(activation, z,", "jax.vjp(activation, -z,"),
    of_activation("its derivative twice", PULLBACK, PULLBACK.replace("dy", "2 * dy"), FACTOR + "2 "),
    of_activation(
        "a slope's gradient: sign", "else each for each in dconstants", "else -each for each in dconstants", SIGN, PRELU
    ),
    of_activation(
        "a slope's gradient: zero",
        "else each for each in dconstants",
        "else 0 * each for each in dconstants",
        ZERO,
        PRELU,
    ),
    of_relu("dz missing from dx", DZ_OF_DX, DZ_OF_DX.replace("dz", "dy")),
    of_relu("dz missing from the sums", DZ_OF_SUMS, DZ_OF_SUMS.replace("dz", "dy")),
    of_relu("argument: x̂", ARGUMENT, ARGUMENT.replace("_argument(x_hat, vectors, residual, where)", "x_hat")),
    of_relu("argument: without β", ARGUMENT, ARGUMENT.replace("vectors,", "vectors._replace(beta=None),")),
    of_relu("argument: without γ", ARGUMENT, ARGUMENT.replace("vectors,", "vectors._replace(gamma=None),")),
    of_relu("argument: without residual", ARGUMENT, ARGUMENT.replace("residual", "None"), None, SILU),
    of_relu("dresidual: zero", DRESIDUAL, "(0 * dz, residual))", ZERO, SILU),
    of_relu("dresidual from dy", DRESIDUAL, "(dy, residual))", None, SILU),
    of_relu(
        "dresidual: mask ignored", "constants, dy, where)", "constants, widened(cotangents[0]))", None, MASKED_SIGMOID
    ),
    of_block("h without ReLU", HIDDEN, f"hidden = y_from_residuals({WITHOUT_RELU}, norm_residuals)"),
    of_block("dK from x", CONV_BWD, CONV_BWD.replace("hidden", "residuals.norm.operands.x")),
    of_block(
        "dK from dh",
        "return doperands,",
        "dkernel = conv_bwd(conv, ConvResiduals(dhidden, residuals.kernel, None), dy)[1]\n    return doperands,",
    ),
    of_block("h in bfloat16", HIDDEN, f"{HIDDEN}\n    hidden = {in_bfloat16('hidden')}", "bfloat16"),
    of_block(
        "dh in bfloat16",
        "(doperands,) = batch_norm_bwd",
        f"dhidden = {in_bfloat16('dhidden')}\n    (doperands,) = batch_norm_bwd",
        "bfloat16",
    ),
    of_block(
        "h: mask ignored",
        HIDDEN,
        f"hidden = y_from_residuals(norm, {UNMASKED})",
        None,
        MASKED_BLOCK,
    ),
    of_block(
        "dx: mask ignored",
        BATCH_NORM_BWD,
        BATCH_NORM_BWD.replace("norm_residuals", UNMASKED),
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
    of_block("dγ: zero", *returned(doperands="doperands._replace(gamma=0 * doperands.gamma)"), ZERO),
    of_block("dbias: twice", *returned(dbias="2 * dbias"), FACTOR + "2 "),
    of_block(
        "dγ with dβ",
        *returned(doperands="doperands._replace(gamma=doperands.beta, beta=doperands.gamma)"),
        "swapped: this is the cotangent of",
    ),
    of_block("dh of the returned h ignored", "dhidden + returned_dhidden", "dhidden", IGNORED, RETURNING_BLOCK),
    of_block("a zero that is none", ZERO_OF_DY, ZERO_OF_DY.replace("0 *", "1e-2 *")),
    of_block(
        "a NaN that spreads",
        ZERO_OF_DY,
        "zero = 0 * jnp.max(lax.stop_gradient(dy), initial=0)",
        "over an axis whose entries",
    ),
]
