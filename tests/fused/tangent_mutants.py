"""Mutants of the tangent rules of several operations at once."""

from functools import partial

from tests.fused.mutants import BLOCK, MASKED_BLOCK, RELU, WITHOUT_RELU
from tests.support.mutants import tangent

ACTIVATED = "_, dz = jax.jvp(options.activation, (_scale_and_shift(x_hat, vectors),), (dz,))"
HIDDEN = "hidden = y_from_residuals(norm, residuals.norm)"
DHIDDEN = "batch_norm_tangents(norm, residuals.norm, dx, dgamma, dbeta, None)"
DY = "conv_tangent(conv, ConvResiduals(hidden, residuals.kernel, residuals.bias), dhidden, dkernel, dbias)"

of_relu = partial(tangent, "_norm.batch_norm")
of_block = partial(tangent, "_fused.batch_norm_relu_conv")

TANGENTS = [
    of_relu("relu: its derivative missing", ACTIVATED, "pass", RELU),
    of_relu("relu: of x̂", ACTIVATED, ACTIVATED.replace("_scale_and_shift(x_hat, vectors)", "x_hat"), RELU),
    of_relu("relu: without β", ACTIVATED, ACTIVATED.replace("vectors)", "vectors._replace(beta=None))"), RELU),
    of_block("block: h without ReLU", HIDDEN, f"hidden = y_from_residuals({WITHOUT_RELU}, residuals.norm)", BLOCK),
    of_block(
        "block: h: mask ignored",
        HIDDEN,
        HIDDEN.replace("residuals.norm", "residuals.norm._replace(where=None)"),
        MASKED_BLOCK,
    ),
    of_block("block: dh ignored", DY, DY.replace("dhidden", "None"), BLOCK),
    of_block("block: dK ignored", DY, DY.replace("dkernel", "None"), BLOCK),
    of_block("block: dbias ignored", DY, DY.replace("dbias", "None"), BLOCK),
    of_block("block: dh without ReLU", DHIDDEN, DHIDDEN.replace("norm,", f"{WITHOUT_RELU},", 1), BLOCK),
    of_block("block: dγ with dβ", DHIDDEN, DHIDDEN.replace("dgamma, dbeta", "dbeta, dgamma"), BLOCK),
]
