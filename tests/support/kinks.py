"""Functions at points where differences along a line do not settle: kinks, ties, zeros, near singularities.

Each has the rule that autodiff has there too, such as one for ``abs`` at zero and equal parts for a maximum with ties.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.support.layers import Function, Layer, logsumexp, logsumexp_bwd, logsumexp_fwd, wide


def by_autodiff(forward: Function) -> tuple[Function, Function, Function]:
    """The function and both halves of a rule that calls autodiff."""
    return forward, lambda *args: (forward(*args), args), lambda args, dy: jax.vjp(forward, *args)[1](dy)


def reciprocal(x: jax.Array) -> jax.Array:
    return 1 / x


def sort(x: jax.Array) -> jax.Array:
    return jnp.sort(x, axis=1)


def sort_fwd(x: jax.Array) -> Any:
    order = jnp.argsort(x, axis=1)
    return jnp.take_along_axis(x, order, 1), order


def sort_bwd(order: jax.Array, dy: jax.Array) -> Any:
    return (jnp.take_along_axis(dy, jnp.argsort(order, axis=1), 1),)


def largest(x: jax.Array) -> jax.Array:
    return jnp.max(x, axis=1)


def largest_fwd(x: jax.Array) -> Any:
    return largest(x), x == largest(x)[:, None]


def largest_bwd(ties: jax.Array, dy: jax.Array) -> Any:
    return (jnp.where(ties, (dy / jnp.sum(ties, axis=1, dtype=dy.dtype))[:, None], 0),)


def top_3(x: jax.Array) -> jax.Array:
    return jax.lax.top_k(x, 3)[0]


def top_3_fwd(x: jax.Array) -> Any:
    values, places = jax.lax.top_k(x, 3)
    return values, (places, x)


def top_3_bwd(residuals: Any, dy: jax.Array) -> Any:
    places, x = residuals
    return (jnp.zeros_like(x).at[jnp.arange(len(x))[:, None], places].set(dy),)


def max_pool(x: jax.Array) -> jax.Array:
    return jax.lax.reduce_window(x, np.asarray(-np.inf, x.dtype), jax.lax.max, (2, 2), (2, 2), "VALID")


def safe_norm(x: jax.Array) -> jax.Array:
    squares = jnp.sum(jnp.square(x), axis=1)
    zero = squares == 0
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, squares)))


def safe_norm_fwd(x: jax.Array) -> Any:
    y = safe_norm(x)
    return y, (x, y)


def safe_norm_bwd(residuals: Any, dy: jax.Array) -> Any:
    x, y = residuals
    zero = y == 0
    return (jnp.where(zero[:, None], 0, x * (dy / jnp.where(zero, 1, y))[:, None]),)


def cholesky(x: jax.Array) -> jax.Array:
    return jnp.linalg.cholesky(wide(x)).astype(x.dtype)


def fft(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    y = jnp.fft.fft(wide(x), axis=1)
    return y.real.astype(x.dtype), y.imag.astype(x.dtype)


def fft_bwd(_: None, dy: Any) -> Any:
    real, imaginary = map(wide, dy)
    return (jnp.fft.fft(jax.lax.complex(real, -imaginary), axis=1).real.astype(dy[0].dtype),)


def cumulative_product(x: jax.Array) -> jax.Array:
    return jnp.cumprod(x, axis=1)


def integers(*shape: int, below: int = 4) -> Any:
    """Few values for many entries, zero among them."""
    return lambda g: [1.0 * g.integers(1 - below, below, shape)]


def reciprocals(generator: np.random.Generator) -> list[np.ndarray]:
    return [np.array([1e-6, 1.0, 3.0]) * generator.choice([-1, 1], 3) * generator.uniform(1, 2, 3)]


def rows_with_zeros(generator: np.random.Generator) -> list[np.ndarray]:
    x = generator.normal(size=(4, 5))
    x[1] = x[3, 2] = 0
    return [x]


def graded(generator: np.random.Generator) -> list[np.ndarray]:
    """Eigenvalues from about 5e-5 to 3e4; rounded to any dtype it is still positive definite."""
    noise = generator.uniform(-0.1, 0.1, (4, 4))
    scale = 2.0 ** generator.permutation([-7, -2, 3, 7])
    return [(np.eye(4) + noise + noise.T) * scale * scale[:, None]]


def minus_infinity(generator: np.random.Generator) -> list[np.ndarray]:
    """Several in each row, and a row that has one finite entry alone."""
    x = np.where(generator.random((4, 6)) < 0.4, -np.inf, generator.normal(size=(4, 6)))
    x[:, 0] = generator.normal(size=4)
    x[2, 1:] = -np.inf
    return [x]


KINKS = {
    "abs at 0": Layer(
        jnp.abs, lambda x: (jnp.abs(x), x >= 0), lambda up, dy: (jnp.where(up, dy, -dy),), integers(3, 7)
    ),
    "ReLU at 0": Layer(
        jax.nn.relu, lambda x: (jax.nn.relu(x), x > 0), lambda on, dy: (jnp.where(on, dy, 0),), integers(3, 7)
    ),
    "max with ties": Layer(largest, largest_fwd, largest_bwd, integers(3, 8, below=2)),
    "max-pool with ties": Layer(*by_autodiff(max_pool), integers(4, 6, below=2)),
    "sort with ties": Layer(sort, sort_fwd, sort_bwd, integers(3, 6)),
    "top-k with ties": Layer(top_3, top_3_fwd, top_3_bwd, integers(3, 6)),
    "safe norm at 0": Layer(safe_norm, safe_norm_fwd, safe_norm_bwd, rows_with_zeros),
    "1/x near 0": Layer(reciprocal, lambda x: (1 / x, 1 / x), lambda y, dy: (-y * y * dy,), reciprocals),
    "Cholesky, ill-conditioned": Layer(*by_autodiff(cholesky), graded),
    "logsumexp with −inf": Layer(logsumexp, logsumexp_fwd, logsumexp_bwd, minus_infinity),
    "FFT": Layer(fft, lambda x: (fft(x), None), fft_bwd, lambda g: [g.normal(size=(2, 6))]),
    "cumulative product with zeros": Layer(*by_autodiff(cumulative_product), integers(3, 5)),
}
