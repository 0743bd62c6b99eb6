"""Mutants of the tangent rules, which ``forward_mode=True`` takes."""

from functools import partial

from tests.norm.mutants import INFERENCE, LARGE_EPSILON, MASKED, MEMBERS, ROWS, UNCHECKED, in_bfloat16
from tests.support.mutants import tangent

CONSTANT = "constant = vector_tangent(dbeta, inv_std) - scale * mean_dx"
ALONG_X_HAT = "along_x_hat = vector_tangent(dgamma, inv_std) - scale * mean_dx_x_hat"
DIRECT = "scale * dx + dz"
DX = "dx = widened(apply_mask(dx, where))"
M = "total / as_divisor(residuals.count, inv_std.dtype) for total"
SCALE = "scale = inv_std if gamma is None else inv_std * gamma.astype(inv_std.dtype)"
TOTAL = "sums = sums if options.collectives is None else options.collectives.psum(sums)"
RETURNED = "apply_mask(dy, where).astype(x.dtype), mean_dx, 2 * mean_dx_x_hat / inv_std"
X_HAT = "x_hat = _x_hat(apply_mask(x, where), where, vectors)"

BY_MEAN = "constant = dbeta - scale * dmean"
BY_VAR = "along_x_hat = dgamma - 0.5 * scale * inv_std * dvar"
DIRECT_INFERENCE = "along_channels(scale, x_hat, options.axis) * dx.astype(x_hat.dtype) + dz"

of_rule = partial(tangent, "_norm.batch_norm")
of_inference = partial(tangent, "_norm.inference")

TANGENTS = [
    of_rule("through μ: sign", CONSTANT, CONSTANT.replace("-", "+"), ROWS),
    of_rule("through μ: dropped", CONSTANT, CONSTANT.replace("scale", "0 * scale"), ROWS),
    of_rule("through x̂: sign", ALONG_X_HAT, ALONG_X_HAT.replace("-", "+"), ROWS),
    of_rule("through x̂: σ⁻²", ALONG_X_HAT, ALONG_X_HAT.replace("scale", "inv_std * scale"), ROWS),
    of_rule("direct: dropped", DIRECT, "dz", ROWS),
    of_rule("dγ: dropped", ALONG_X_HAT, ALONG_X_HAT.replace("vector_tangent(dgamma, inv_std)", "0"), ROWS),
    of_rule("dβ: dropped", CONSTANT, CONSTANT.replace("vector_tangent(dbeta, inv_std)", "0"), ROWS),
    of_rule("dγ for dβ", CONSTANT, CONSTANT.replace("dbeta", "dgamma"), ROWS),
    of_rule("m−1", M, M.replace(" for", " * (6 / 5) for"), ROWS),
    of_rule("γ dropped", SCALE, "scale = inv_std", ROWS),
    of_rule("ε dropped", X_HAT, f"inv_std = (inv_std**-2 - options.epsilon) ** -0.5\n    {X_HAT}", LARGE_EPSILON),
    of_rule("dμ ignored", RETURNED, RETURNED.replace(" mean_dx,", " 0 * mean_dx,"), ROWS),
    of_rule("dσ²: 2 dropped", RETURNED, RETURNED.replace("2 * ", ""), ROWS),
    of_rule("dσ²: x̂ for x − μ", RETURNED, RETURNED.replace(" / inv_std", ""), ROWS),
    of_rule("dx in bfloat16", DX, DX.replace("dx, where)", f"{in_bfloat16('dx')}, where)"), ROWS),
    of_rule("x̂ in bfloat16", X_HAT, f"{X_HAT}\n    x_hat = {in_bfloat16('x_hat')}", ROWS),
    of_rule(
        "x̂: not differentiated again",
        X_HAT,
        f"{X_HAT}\n    x_hat = lax.stop_gradient(x_hat)",
        ROWS,
        transforms=("jvp of grad",),
    ),
    of_rule("dx: mask ignored", DX, "dx = widened(dx)", MASKED),
    of_rule("dy: mask ignored", RETURNED, RETURNED.replace("apply_mask(dy, where)", "dy"), MASKED),
    of_rule("m: mask ignored", M, "total / (x.size / inv_std.size) for total", MASKED),
    of_rule("all-reduce missing", TOTAL, "", MEMBERS),
    of_rule("all-reduce missing on devices", TOTAL, "", UNCHECKED),
    of_inference("inference: through μ: sign", BY_MEAN, BY_MEAN.replace("-", "+"), INFERENCE),
    of_inference("inference: through σ²: ½ dropped", BY_VAR, BY_VAR.replace("0.5 * ", ""), INFERENCE),
    of_inference("inference: through σ²: σ⁻² for σ⁻³", BY_VAR, BY_VAR.replace("inv_std * ", ""), INFERENCE),
    of_inference("inference: dγ for dβ", BY_MEAN, BY_MEAN.replace("dbeta", "dgamma"), INFERENCE),
    of_inference("inference: direct: dropped", DIRECT_INFERENCE, "dz", INFERENCE),
    of_inference(
        "inference: direct: in bfloat16",
        DIRECT_INFERENCE,
        DIRECT_INFERENCE.replace("dx.astype(", "dx.astype('bfloat16').astype("),
        INFERENCE,
    ),
]
