"""Mutants of the tangent rules of several operations at once."""

from functools import partial

from tests.fused.mutants import BLOCK, MASKED_BLOCK, PRELU, RELU, SILU, WITHOUT_RELU
from tests.support.mutants import tangent

ARGUMENT = "z = _argument(x_hat, vectors, residual, where)\n    dy ="
HIDDEN = "hidden = y_from_residuals(norm, residuals.norm)"
DHIDDEN = "batch_norm_tangents(norm, residuals.norm, tangents)"
DY = "conv_tangent(conv, ConvResiduals(hidden, residuals.kernel, residuals.bias), moved, dkernel, dbias)"

of_relu = partial(tangent, "_norm.batch_norm")
of_activation = partial(tangent, "_norm.activation")
of_block = partial(tangent, "_fused.batch_norm_act_conv")

TANGENTS = [
    of_activation("activation: its derivative missing", "(dz, *tangents))[1]", "(dz, *tangents))[1] * 0 + dz", RELU),
    of_activation(
        "activation: a slope's tangent ignored",
        "[_zero_tangent(constant) if tangent is None else tangent for",
        "[_zero_tangent(constant) for",
        PRELU,
    ),
    of_relu("relu: of x̂", ARGUMENT, ARGUMENT.replace("_argument(x_hat, vectors, residual, where)", "x_hat"), RELU),
    of_relu("relu: without β", ARGUMENT, ARGUMENT.replace("vectors,", "vectors._replace(beta=None),"), RELU),
    of_relu("residual: its tangent ignored", "dz + widened(apply_mask(dresidual, where))", "dz", SILU),
    of_relu("residual: left out of z", ARGUMENT, ARGUMENT.replace("residual", "None"), SILU),
    of_block("block: h without ReLU", HIDDEN, f"hidden = y_from_residuals({WITHOUT_RELU}, residuals.norm)", BLOCK),
    of_block(
        "block: h: mask ignored",
        HIDDEN,
        HIDDEN.replace(
            "residuals.norm", "residuals.norm._replace(operands=residuals.norm.operands._replace(where=None))"
        ),
        MASKED_BLOCK,
    ),
    of_block("block: dh ignored", DY, DY.replace("moved", "None"), BLOCK),
    of_block("block: dK ignored", DY, DY.replace("dkernel", "None"), BLOCK),
    of_block("block: dbias ignored", DY, DY.replace("dbias", "None"), BLOCK),
    of_block("block: dh without ReLU", DHIDDEN, DHIDDEN.replace("norm,", f"{WITHOUT_RELU},", 1), BLOCK),
    of_block(
        "block: dγ with dβ",
        DHIDDEN,
        DHIDDEN.replace("tangents)", "tangents._replace(gamma=tangents.beta, beta=tangents.gamma))"),
        BLOCK,
    ),
]
