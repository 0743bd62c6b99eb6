"""Mutants of batch norm's rules."""

from typing import Any

import jax.numpy as jnp

from tests.cases import Case, norm_case
from tests.mutants import Mutant

ROWS = norm_case("batch_norm", (6, 4), -1, (1, 1))
IMAGES = norm_case("batch_norm", (3, 4, 5, 2), -1, (1, 1))
INFERENCE = norm_case("batch_norm_inference", (3, 5, 4), -1, (1, 1))

DIRECT = "vectors.inv_std * (dx_hat - mean_dx_hat)"
VAR = "x_hat * (-vectors.inv_std * mean_dx_hat_x_hat)"
BOTH = "direct_and_through_mean + through_var"
MOMENTS = "dmean + x_hat * (2 * dvar / vectors.inv_std)"
DX = "    dx = kept(direct_and_through_mean + through_var + of_moments, where).astype(x.dtype)\n"
RETURNED = "    return dx, like(dgamma, gamma), like(dbeta, beta)\n\n\ndef like"
SUMMED = "    dbeta, dgamma = channel_sums(terms, x, dy, where, vectors, axis=config.axis)\n"


def of_maps(name: str, old: str, new: str, cause: str | None = None, case: Case = ROWS, **more: Any) -> Mutant:
    return Mutant(f"batch norm: {name}", "norm.maps", old, new, case, cause, **more)


def of_inference(name: str, old: str, new: str, cause: str | None = None, **more: Any) -> Mutant:
    return Mutant(name, "norm.inference", old, new, INFERENCE, cause, **more)


def returned(dx: str = "dx", dgamma: str = "dgamma", dbeta: str = "dbeta") -> tuple[str, str]:
    return RETURNED, f"    return {dx}, like({dgamma}, gamma), like({dbeta}, beta)\n\n\ndef like"


SIGN, FACTOR, ZERO = "the sign: got is", "a constant factor: got is ", "zero: nothing comes back"
X_HAT, CONSTANT = "a term parallel to x̂", "a term parallel to a constant"

NORMALISATION = [
    of_maps("dx: sign", *returned(dx="-dx"), SIGN),
    of_maps("dγ: sign", *returned(dgamma="-dgamma"), SIGN),
    of_maps("dβ: sign", *returned(dbeta="-dbeta"), SIGN),
    of_maps("dx: zero", *returned(dx="0 * dx"), ZERO),
    of_maps("dγ: zero", *returned(dgamma="0 * dgamma"), ZERO),
    of_maps("dγ with dβ", *returned(dgamma="dbeta", dbeta="dgamma"), "swapped: this is the cotangent of"),
    of_maps("dγ: mean", *returned(dgamma="dgamma / m"), "1/m with m = 6"),
    of_maps("dβ: mean", *returned(dbeta="dbeta / m"), "1/m with m = 6"),
    of_maps("dβ: m−1", *returned(dbeta="dbeta / (m - 1)"), "1/(m−1) with m = 6"),
    of_maps("dβ: mean over the batch alone", *returned(dbeta="dbeta / len(x)"), "1/m with m = 3", IMAGES),
    of_maps("dβ: N·C", *returned(dbeta="dbeta / x.size"), "1/m with m = 24"),
    of_maps("dx: unbiased", *returned(dx="dx * (len(x) / (len(x) - 1))"), "m/(m−1) with m = 6"),
    of_maps("through x̂: sign", VAR, VAR.replace("-", ""), X_HAT),
    of_maps("through x̂: dropped", VAR, f"0 * {VAR}", X_HAT),
    of_maps("through x̂: twice", VAR, f"2 * {VAR}", X_HAT),
    of_maps("through x̂: m−1", VAR, f"6 / 5 * {VAR}", X_HAT),
    of_maps("through x̂: σ⁻²", VAR, f"vectors.inv_std * {VAR}", X_HAT),
    of_maps("through x̂: γ dropped", VAR, f"{VAR} / vectors.gamma", X_HAT),
    of_maps("through μ: sign", DIRECT, DIRECT.replace("-", "+"), CONSTANT),
    of_maps("through μ: dropped", DIRECT, "vectors.inv_std * dx_hat", CONSTANT),
    of_maps("through μ: m−1", DIRECT, DIRECT.replace("- ", "- 6 / 5 * "), CONSTANT),
    of_maps("through μ: σ⁻²", DIRECT, DIRECT.replace("- ", "- vectors.inv_std * "), CONSTANT),
    of_maps("direct: dropped", DIRECT, DIRECT.replace("dx_hat - ", "-"), "a term parallel to the cotangent of"),
    of_maps("direct: γ dropped", DIRECT, DIRECT.replace("(dx_hat", "(dy")),
    of_maps("γ dropped", BOTH, f"({BOTH}) / vectors.gamma"),
    of_maps("γ dropped from the means", "sums = sums * ", "sums = sums + 0 * "),
    of_maps("σ⁻¹ dropped", BOTH, f"({BOTH}) / vectors.inv_std"),
    of_maps("σ⁻²", BOTH, f"({BOTH}) * vectors.inv_std"),
    of_maps("dmean ignored", MOMENTS, MOMENTS.replace("dmean", "0 * dmean"), "ignored: the cotangent of"),
    of_maps("dvar ignored", MOMENTS, MOMENTS.replace("2 *", "0 *"), "ignored: the cotangent of"),
    of_maps("dmean and dvar ignored", MOMENTS, f"0 * ({MOMENTS})", "ignored: the cotangent of"),
    of_maps("dmean: sign", MOMENTS, MOMENTS.replace("dmean", "-dmean"), CONSTANT),
    of_maps("dmean with dvar", MOMENTS, "dvar + x_hat * (2 * dmean / vectors.inv_std)"),
    of_maps("dvar: 2 dropped", MOMENTS, MOMENTS.replace("2 * ", ""), X_HAT),
    of_maps("dvar: x̂ for x − μ", MOMENTS, MOMENTS.replace(" / vectors.inv_std", ""), X_HAT),
    of_maps("dx in bfloat16", *returned(dx="dx.astype('bfloat16').astype(x.dtype)"), "bfloat16"),
    of_maps("dγ in float16", *returned(dgamma="dgamma.astype('float16')"), "float16"),
    of_maps(
        "dγ in float32", *returned()[:1], returned()[1].replace("like(dgamma, gamma)", "dgamma"), dtype=jnp.bfloat16
    ),
    of_maps("dy in bfloat16", SUMMED, "    dy = dy.astype('bfloat16').astype(x.dtype)\n" + SUMMED, "bfloat16"),
    of_maps("dγ: channels reversed", *returned(dgamma="dgamma[::-1]"), "flipped along axis 0"),
    of_maps("dx: rows reversed", *returned(dx="dx[::-1]"), "flipped along axis 0"),
    of_maps("dx: not differentiated again", *returned(dx="lax.stop_gradient(dx)"), transforms=("grad of grad",)),
    of_inference("inference: dmean: sign", "dmean = -scale", "dmean = scale", SIGN),
    of_inference("inference: dvar: ½ dropped", "-0.5 * scale", "-scale", FACTOR + "2 "),
    of_inference("inference: dvar: sign", "-0.5 * scale", "0.5 * scale", SIGN),
    of_inference("inference: dvar: σ⁻² for σ⁻³", "scale * inv_std * dgamma", "scale * dgamma", "√`args[2]`"),
    of_inference("inference: dx: γ dropped", "dx = along_channels(scale,", "dx = along_channels(inv_std,"),
    of_inference(
        "inference: dmean with dvar",
        "return dx.astype(x.dtype), dmean, dvar",
        "return dx.astype(x.dtype), dvar, dmean",
        "swapped: this is the cotangent of",
    ),
]
