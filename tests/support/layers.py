"""Layers that users write over ``jnp``, each with a right rule and without."""

from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Function = Callable[..., Any]

# What right rules are checked under: in float32 all there is. In another dtype digits can be wrong beside, of a second
# derivative above all.
TRANSFORMS: dict[Any, Any] = {
    jnp.float32: "all",
    jnp.bfloat16: "grad of grad",
    jnp.float16: "vmap of the pullback",
    jnp.float64: (),
}


def with_rule(forward: Function, fwd: Function, bwd: Function) -> Function:
    """``forward`` under its own name, with a derivative by hand."""

    rule = jax.custom_vjp(wraps(forward)(lambda *args: forward(*args)))
    rule.defvjp(fwd, bwd)
    return rule


class Layer(NamedTuple):
    """A forward without a rule, the two halves of a right rule, and arguments from a generator."""

    forward: Function
    fwd: Function
    bwd: Function
    arguments: Callable[[np.random.Generator], list[np.ndarray]]

    @property
    def rule(self) -> Function:
        return with_rule(self.forward, self.fwd, self.bwd)

    def arrays(self, seed: int, dtype: Any) -> list[jax.Array]:
        return [
            jnp.asarray(each, dtype if each.dtype == np.float64 else jnp.int32)
            for each in self.arguments(np.random.default_rng(seed))
        ]


def wide(x: jax.Array) -> jax.Array:
    """In at least float32, as every rule of the kind computes."""
    return x if x.dtype == jnp.float64 else x.astype(jnp.float32)


# --------------------------------------------------------------------------------------- softmax and cross-entropy


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    logits32 = wide(logits)
    picked = jnp.take_along_axis(logits32, labels[:, None], 1)[:, 0]
    return (jax.nn.logsumexp(logits32, axis=1) - picked).astype(logits.dtype)


def cross_entropy_fwd(logits: jax.Array, labels: jax.Array) -> Any:
    return cross_entropy(logits, labels), (logits, labels)


def cross_entropy_bwd(residuals: Any, dy: jax.Array) -> Any:
    logits, labels = residuals
    p = jax.nn.softmax(wide(logits))
    picked = jax.nn.one_hot(labels, p.shape[1], dtype=p.dtype)
    return ((p - picked) * dy.astype(p.dtype)[:, None]).astype(logits.dtype), None


# ------------------------------------------------------------------------------------------------------- layer norm


def layer_norm(x: jax.Array, gamma: jax.Array, beta: jax.Array) -> jax.Array:
    x32 = wide(x)
    centred = x32 - jnp.mean(x32, -1, keepdims=True)
    x_hat = centred / jnp.sqrt(jnp.mean(jnp.square(centred), -1, keepdims=True) + 1e-5)
    return (x_hat * wide(gamma)[None] + wide(beta)[None]).astype(x.dtype)


def layer_norm_fwd(x: jax.Array, gamma: jax.Array, beta: jax.Array) -> Any:
    return layer_norm(x, gamma, beta), (x, gamma)


def layer_norm_bwd(residuals: Any, dy: jax.Array) -> Any:
    x, gamma = residuals
    x32, dy32 = wide(x), wide(dy)
    centred = x32 - jnp.mean(x32, -1, keepdims=True)
    inv_std = jax.lax.rsqrt(jnp.mean(jnp.square(centred), -1, keepdims=True) + 1e-5)
    x_hat = centred * inv_std
    g = dy32 * wide(gamma)[None]
    dx = inv_std * (g - jnp.mean(g, -1, keepdims=True) - x_hat * jnp.mean(g * x_hat, -1, keepdims=True))
    return dx.astype(x.dtype), jnp.sum(dy32 * x_hat, 0).astype(gamma.dtype), jnp.sum(dy32, 0).astype(gamma.dtype)


# ------------------------------------------------------------------------------------------------------------- GELU


def gelu(x: jax.Array) -> jax.Array:
    return 0.5 * x * (1 + jax.lax.erf(x * np.sqrt(0.5).astype(x.dtype)))


def gelu_fwd(x: jax.Array) -> Any:
    return gelu(x), x


def gelu_bwd(x: jax.Array, dy: jax.Array) -> Any:
    x32 = wide(x)
    density = jnp.exp(-0.5 * jnp.square(x32)) * float(1 / np.sqrt(2 * np.pi))
    return (((0.5 * (1 + jax.lax.erf(x32 * float(np.sqrt(0.5)))) + x32 * density) * wide(dy)).astype(x.dtype),)


# -------------------------------------------------------------------------------------------------------- attention


def attention(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    weights = jax.nn.softmax(wide(q) @ wide(k).T * q.shape[1] ** -0.5)
    return (weights @ wide(v)).astype(v.dtype)


def attention_fwd(q: jax.Array, k: jax.Array, v: jax.Array) -> Any:
    return attention(q, k, v), (q, k, v)


def attention_bwd(residuals: Any, dy: jax.Array) -> Any:
    q, k, v = map(wide, residuals)
    dy32, scale = wide(dy), q.shape[1] ** -0.5
    p = jax.nn.softmax(q @ k.T * scale)
    dp = dy32 @ v.T
    ds = p * (dp - jnp.sum(dp * p, -1, keepdims=True)) * scale
    return tuple(
        each.astype(primal.dtype) for each, primal in zip((ds @ k, ds.T @ q, p.T @ dy32), residuals, strict=True)
    )


# ------------------------------------------------------------------------------------ cumulative sum and logsumexp


def cumulative_sum(x: jax.Array) -> jax.Array:
    return jnp.cumsum(x, axis=1)


def cumulative_sum_fwd(x: jax.Array) -> Any:
    return cumulative_sum(x), None


def cumulative_sum_bwd(_: None, dy: jax.Array) -> Any:
    return (jax.lax.cumsum(dy, axis=1, reverse=True),)


def logsumexp(x: jax.Array) -> jax.Array:
    return jax.nn.logsumexp(x, axis=1)


def logsumexp_fwd(x: jax.Array) -> Any:
    y = logsumexp(x)
    return y, (x, y)


def logsumexp_bwd(residuals: Any, dy: jax.Array) -> Any:
    x, y = residuals
    return (jnp.exp(x - y[:, None]) * dy[:, None],)


def masked_logits(generator: np.random.Generator) -> list[np.ndarray]:
    """Some are minus infinity, as a mask makes them."""
    logits = generator.normal(size=(4, 7))
    logits[:, 2] = logits[1, 4] = -np.inf
    return [logits]


# ------------------------------------------------------------------------------------------------------- batch norm


def batch_norm(x: jax.Array, gamma: jax.Array, beta: jax.Array) -> jax.Array:
    centred = x - jnp.mean(x, 0)[None]
    x_hat = centred / jnp.sqrt(jnp.mean(jnp.square(centred), 0) + 1e-5)[None]
    return gamma[None] * x_hat + beta[None]


def batch_norm_fwd(x: jax.Array, gamma: jax.Array, beta: jax.Array) -> Any:
    return batch_norm(x, gamma, beta), (x, gamma)


def batch_norm_bwd(residuals: Any, dy: jax.Array) -> Any:
    x, gamma = residuals
    centred = x - jnp.mean(x, 0)[None]
    inv_std = (1 / jnp.sqrt(jnp.mean(jnp.square(centred), 0) + 1e-5))[None]
    x_hat = centred * inv_std
    dgamma, dbeta = jnp.sum(dy * x_hat, 0), jnp.sum(dy, 0)
    dx = gamma[None] * inv_std * (dy - dbeta[None] / len(x) - x_hat * dgamma[None] / len(x))
    return dx, dgamma, dbeta


LAYERS = {
    "softmax cross-entropy": Layer(
        cross_entropy, cross_entropy_fwd, cross_entropy_bwd, lambda g: [g.normal(size=(5, 7)), g.integers(0, 7, 5)]
    ),
    "layer norm": Layer(
        layer_norm,
        layer_norm_fwd,
        layer_norm_bwd,
        lambda g: [g.normal(size=(5, 8)), 1 + 0.3 * g.normal(size=8), g.normal(size=8)],
    ),
    "GELU": Layer(gelu, gelu_fwd, gelu_bwd, lambda g: [g.normal(size=(4, 9))]),
    "attention": Layer(
        attention, attention_fwd, attention_bwd, lambda g: [g.normal(size=s) for s in ((5, 4), (6, 4), (6, 3))]
    ),
    "cumulative sum": Layer(cumulative_sum, cumulative_sum_fwd, cumulative_sum_bwd, lambda g: [g.normal(size=(3, 12))]),
    "logsumexp": Layer(logsumexp, logsumexp_fwd, logsumexp_bwd, masked_logits),
}

BATCH_NORM = Layer(
    batch_norm,
    batch_norm_fwd,
    batch_norm_bwd,
    lambda g: [g.normal(size=(6, 4)), 1 + 0.3 * g.normal(size=4), g.normal(size=4)],
)
