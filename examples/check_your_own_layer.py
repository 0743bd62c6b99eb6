"""Finds the mistake in a hand-written derivative: a batch norm whose backward pass lacks a term.

    python examples/check_your_own_layer.py [--output runs/check_your_own_layer]

The layer is an ordinary function with `jax.custom_vjp`. `jaxbn.testing.check_custom_vjp` compares its derivative with
autodiff of the same function without the rule. The report says which argument's gradient is wrong, where and by how
much, and guesses the cause.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp

from jaxbn.testing import VjpReport, check_custom_vjp


def plain_layer(x: jax.Array, gamma: jax.Array, beta: jax.Array) -> jax.Array:
    """Batch normalisation without a derivative rule. Autodiff gives its right derivative."""
    centred = x - jnp.mean(x, axis=0)
    return gamma * centred / jnp.sqrt(jnp.mean(centred**2, axis=0) + 1e-5) + beta


@jax.custom_vjp
def my_layer(x: jax.Array, gamma: jax.Array, beta: jax.Array) -> jax.Array:
    return my_layer_fwd(x, gamma, beta)[0]


def my_layer_fwd(x: jax.Array, gamma: jax.Array, beta: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    centred = x - jnp.mean(x, axis=0)
    inv_std = 1 / jnp.sqrt(jnp.mean(centred**2, axis=0) + 1e-5)
    return gamma * centred * inv_std + beta, (centred * inv_std, gamma, inv_std)


def my_layer_bwd(residuals: tuple[jax.Array, ...], dy: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    x_hat, gamma, inv_std = residuals
    dgamma, dbeta = jnp.sum(dy * x_hat, axis=0), jnp.sum(dy, axis=0)
    dx = gamma * inv_std * (dy - dbeta / len(dy))  # the mistake: the term "- x_hat * dgamma / len(dy)" is missing
    return dx, dgamma, dbeta


my_layer.defvjp(my_layer_fwd, my_layer_bwd)


def arguments_of_layer(seed: int = 0) -> tuple[jax.Array, jax.Array, jax.Array]:
    return jax.random.normal(jax.random.key(seed), (16, 6)), jnp.linspace(0.5, 1.5, 6), jnp.zeros(6)


def check(seed: int = 0) -> VjpReport:
    return check_custom_vjp(my_layer, plain_layer, *arguments_of_layer(seed), raise_on_failure=False)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("runs/check_your_own_layer"), help="folder for the page")
    output = parser.parse_args(arguments).output
    report = check()
    print(report)
    output.mkdir(parents=True, exist_ok=True)
    report.to_html(output / "report.html")
    (output / "report.json").write_text(report.to_json())
    print(f"heat maps: {output / 'report.html'}")


if __name__ == "__main__":
    main()
