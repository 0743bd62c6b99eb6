"""Mutants of batch norm's rules."""

from typing import Any

import jax.numpy as jnp

from tests.support.cases import Case, norm_case
from tests.support.mutants import Mutant

ROWS = norm_case("batch_norm", (6, 4), -1, (1, 1))
IMAGES = norm_case("batch_norm", (3, 4, 5, 2), -1, (1, 1))
SQUARE = norm_case("batch_norm", (4, 3, 4), -1, (1, 1))
LARGE_EPSILON = norm_case("batch_norm", (6, 4), -1, (1, 1), epsilon=0.1)
INFERENCE = norm_case("batch_norm_inference", (3, 5, 4), -1, (1, 1), epsilon=0.1)
# The last of three images does not count.
MASKED = norm_case("batch_norm", (3, 5, 2), -1, (1, 1), where="images")
MEMBERS, DEVICES, UNCHECKED = (
    norm_case("batch_norm", (6, 3), -1, (1, 1), spread=kind) for kind in ("vmap", "shard_map", "shard_map, unchecked")
)

DIRECT = "vectors.inv_std * (dx_hat - mean_dx_hat)"
VAR = "x_hat * (-vectors.inv_std * mean_dx_hat_x_hat)"
BOTH = "direct_and_through_mean + through_variance"
MOMENTS = "returned_dmean_over_m + x_hat * (2 * returned_dvar_over_m / vectors.inv_std)"
DX = "direct_and_through_mean + through_variance + through_returned_moments, where)"
DY = "x, dy = apply_mask(x, where), widened(apply_mask(dy, where))"
M = "m = as_divisor(count, inv_std.dtype)"
SAVED = "    inv_std, count = residuals.inv_std, residuals.count\n"
RETURNED = "    return (Operands(dx, dgamma, dbeta, None, dresidual, dconstants),)\n"
SUMMED = "    dbeta, dgamma = channel_sums(terms, x, dz, where, vectors, axis=options.axis)\n"
TOTAL = "return lax.psum(x, self.axis_names) if self.axis_index_groups"
INV_STD = "    inv_std = _inv_std(var, centred, options)\n    dbeta ="


def of_rule(name: str, old: str, new: str, cause: str | None = None, case: Case = ROWS, **more: Any) -> Mutant:
    return Mutant(f"batch norm: {name}", "_norm.batch_norm", old, new, case, cause, **more)


def of_collectives(name: str, old: str, new: str, cause: str | None = None, case: Case = MEMBERS) -> Mutant:
    return Mutant(f"devices: {name}", "_norm.collectives", old, new, case, cause)


def of_inference(name: str, old: str, new: str, cause: str | None = None) -> Mutant:
    return Mutant(f"inference: {name}", "_norm.inference", old, new, INFERENCE, cause)


def returned(dx: str = "dx", dgamma: str = "dgamma", dbeta: str = "dbeta") -> tuple[str, str]:
    return RETURNED, f"    return (Operands({dx}, {dgamma}, {dbeta}, None, dresidual, dconstants),)\n"


def in_bfloat16(name: str) -> str:
    return f"{name}.astype('bfloat16').astype({name}.dtype)"


SIGN, FACTOR, ZERO = "the sign: got is", "a constant factor: got is ", "zero: nothing comes back"
X_HAT, CONSTANT = "a term parallel to x̂", "a term parallel to a constant"
ALONG, IGNORED = "a factor that differs along axis ", "ignored: the cotangent of"

NORMALISATION = [
    # Signs, factors and terms.
    of_rule("dx: sign", *returned(dx="-dx"), SIGN),
    of_rule("dγ: sign", *returned(dgamma="-dgamma"), SIGN),
    of_rule("dβ: sign", *returned(dbeta="-dbeta"), SIGN),
    of_rule("dx: zero", *returned(dx="0 * dx"), ZERO),
    of_rule("dγ: zero", *returned(dgamma="0 * dgamma"), ZERO),
    of_rule("dγ with dβ", *returned(dgamma="dbeta", dbeta="dgamma"), "swapped: this is the cotangent of"),
    of_rule("dγ: mean", *returned(dgamma="dgamma / m"), "1/m with m = 6"),
    of_rule("dβ: mean", *returned(dbeta="dbeta / m"), "1/m with m = 6"),
    of_rule("dβ: m−1", *returned(dbeta="dbeta / (m - 1)"), "1/(m−1) with m = 6"),
    of_rule("dβ: mean over the batch alone", *returned(dbeta="dbeta / len(x)"), "1/m with m = 3", IMAGES),
    of_rule("dβ: N·C", *returned(dbeta="dbeta / x.size"), "1/m with m = 24"),
    of_rule("dx: unbiased", *returned(dx="dx * (len(x) / (len(x) - 1))"), "m/(m−1) with m = 6"),
    of_rule("through x̂: sign", VAR, VAR.replace("-", ""), X_HAT),
    of_rule("through x̂: dropped", VAR, f"0 * {VAR}", X_HAT),
    of_rule("through x̂: twice", VAR, f"2 * {VAR}", X_HAT),
    of_rule("through x̂: m−1", VAR, f"6 / 5 * {VAR}", X_HAT),
    of_rule("through x̂: σ⁻²", VAR, f"vectors.inv_std * {VAR}", X_HAT),
    of_rule("through x̂: γ dropped", VAR, f"{VAR} / vectors.gamma", X_HAT),
    of_rule("through μ: sign", DIRECT, DIRECT.replace("-", "+"), CONSTANT),
    of_rule("through μ: dropped", DIRECT, "vectors.inv_std * dx_hat", CONSTANT),
    of_rule("through μ: m−1", DIRECT, DIRECT.replace("- ", "- 6 / 5 * "), CONSTANT),
    of_rule("through μ: σ⁻²", DIRECT, DIRECT.replace("- ", "- vectors.inv_std * "), CONSTANT),
    of_rule("direct: dropped", DIRECT, DIRECT.replace("dx_hat - ", "-"), "a term parallel to the cotangent of"),
    of_rule("direct: γ dropped", DIRECT, DIRECT.replace("(dx_hat", "(dy")),
    of_rule("γ dropped", BOTH, f"({BOTH}) / vectors.gamma"),
    of_rule("γ dropped from the means", "dx_hat_sums = dx_hat_sums * ", "dx_hat_sums = dx_hat_sums + 0 * "),
    of_rule("σ⁻¹ dropped", BOTH, f"({BOTH}) / vectors.inv_std"),
    of_rule("σ⁻²", BOTH, f"({BOTH}) * vectors.inv_std"),
    of_rule(
        "ε dropped",
        SAVED,
        f"{SAVED}    residuals = residuals._replace(inv_std=(inv_std**-2 - options.epsilon) ** -0.5)\n",
        ALONG + "0",
        LARGE_EPSILON,
    ),
    of_rule("m over all channels", M, f"{M} * len(inv_std)"),
    of_rule("sums over the wrong axis", SUMMED, SUMMED.replace("options.axis", "0"), "axes 0 and 2 are", SQUARE),
    # The moments' cotangents.
    of_rule("dmean ignored", MOMENTS, MOMENTS.replace("returned_dmean_over_m", "0 * returned_dmean_over_m"), IGNORED),
    of_rule("dvar ignored", MOMENTS, MOMENTS.replace("2 *", "0 *"), IGNORED),
    of_rule("dmean and dvar ignored", MOMENTS, f"0 * ({MOMENTS})", IGNORED),
    of_rule("dmean: sign", MOMENTS, MOMENTS.replace("returned_dmean_over_m", "-returned_dmean_over_m"), CONSTANT),
    of_rule("dmean with dvar", MOMENTS, "returned_dvar_over_m + x_hat * (2 * returned_dmean_over_m / vectors.inv_std)"),
    of_rule("dvar: 2 dropped", MOMENTS, MOMENTS.replace("2 * ", ""), X_HAT),
    of_rule("dvar: x̂ for x − μ", MOMENTS, MOMENTS.replace(" / vectors.inv_std", ""), X_HAT),
    # Precision and dtypes.
    of_rule("dx in bfloat16", *returned(dx=in_bfloat16("dx")), "bfloat16"),
    of_rule("dγ in float16", *returned(dgamma="dgamma.astype('float16')"), "float16"),
    of_rule(
        "dγ in float32",
        *returned(dgamma="dgamma.astype('float32')"),
        dtype=jnp.bfloat16,
    ),
    of_rule("dz in bfloat16", SUMMED, f"    dz = {in_bfloat16('dz')}\n{SUMMED}", "bfloat16"),
    of_rule("residual x in bfloat16", SAVED, f"{SAVED}    x = {in_bfloat16('x')}\n", "bfloat16"),
    of_rule(
        "residual 1/σ in bfloat16",
        SAVED,
        f"{SAVED}    residuals = residuals._replace(inv_std={in_bfloat16('inv_std')})\n",
        "bfloat16",
    ),
    of_rule(
        "sums in bfloat16",
        SUMMED,
        SUMMED.replace("terms", "lambda *of: [term.astype('bfloat16') for term in terms(*of)]")
        + "    dbeta, dgamma = dbeta.astype(inv_std.dtype), dgamma.astype(inv_std.dtype)\n",
        "bfloat16",
    ),
    # Orders and derivatives.
    of_rule("dγ: channels reversed", *returned(dgamma="dgamma[::-1]"), "flipped along axis 0"),
    of_rule("dx: rows reversed", *returned(dx="dx[::-1]"), "flipped along axis 0"),
    of_rule("dx: not differentiated again", *returned(dx="lax.stop_gradient(dx)"), transforms=("grad of grad",)),
    # Masks.
    of_rule("dx: mask ignored", DX, DX.replace("where)", "None)"), "a mask ignored", MASKED),
    of_rule("dy: mask ignored", DY, "x, dy = apply_mask(x, where), widened(dy)", None, MASKED),
    of_rule("m: mask ignored", M, "m = jnp.asarray(x.size / inv_std.size, inv_std.dtype)", None, MASKED),
    # Devices.
    of_collectives("all-reduce missing", TOTAL, "return x if self.axis_index_groups"),
    of_collectives("all-reduce missing on devices", TOTAL, "return x if self.axis_index_groups", None, UNCHECKED),
    of_collectives(
        "all-reduce doubled",
        TOTAL,
        "return lax.psum(lax.psum(x, self.axis_names), self.axis_names) if self.axis_index_groups",
    ),
    of_collectives("all-reduce is a mean", TOTAL, TOTAL.replace("axis_names)", "axis_names) / 2")),
    of_collectives("all-reduce is a maximum", TOTAL, TOTAL.replace("psum", "pmax")),
    of_collectives(
        "moments' cotangents reduced though one",
        "if self.moments_have_one_cotangent:",
        "if False:",
    ),
    of_collectives(
        "moments' cotangents not reduced", "if self.moments_have_one_cotangent:", "if True:", None, UNCHECKED
    ),
    of_rule("m of one device", M, f"{M} / 2", None, MEMBERS),
    of_rule(
        "dγ: all-reduced twice", *returned(dgamma="lax.psum(dgamma, options.axis_names)"), FACTOR + "2 ", UNCHECKED
    ),
    of_rule("dβ: all-reduced twice", *returned(dbeta="lax.psum(dbeta, options.axis_names)"), FACTOR + "2 ", UNCHECKED),
    # By given statistics.
    of_inference("dmean: sign", "dmean = -scale", "dmean = scale", SIGN),
    of_inference("dvar: ½ dropped", "-0.5 * scale", "-scale", FACTOR + "2 "),
    of_inference("dvar: sign", "-0.5 * scale", "0.5 * scale", SIGN),
    of_inference("dvar: σ⁻² for σ⁻³", "scale * inv_std * dgamma", "scale * dgamma", ALONG + "0"),
    of_inference("dx: γ dropped", "dx = along_channels(scale,", "dx = along_channels(inv_std,"),
    of_inference(
        "ε dropped",
        INV_STD,
        INV_STD.replace("options", "BatchNormOptions(axis=options.axis, epsilon=0.0)"),
        ALONG + "2",
    ),
    of_inference(
        "dmean with dvar",
        "Operands(dx.astype(x.dtype), dmean, dvar,",
        "Operands(dx.astype(x.dtype), dvar, dmean,",
        "swapped: this is the cotangent of",
    ),
]
