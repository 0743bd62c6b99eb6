"""Checks derivatives that are written by hand, and counts what they save for the backward pass.

`check_custom_vjp` compares a function that has a derivative rule, such as one with `jax.custom_vjp`, with autodiff of
the same function without the rule. It has no tolerance to set, because it measures how large rounding errors are. If
the rule is wrong, it says where and by how much, guesses the cause, and prints Python code that reproduces the error.

`saved_bytes` counts the bytes that a function keeps from the forward pass for the backward pass.

Both accept any JAX function. In a test file for pytest:

    import jax
    import jax.numpy as jnp
    from jaxbn.testing import check_custom_vjp, saved_bytes

    def plain_softplus(x):
        return jnp.logaddexp(x, jnp.zeros_like(x))

    softplus = jax.custom_vjp(plain_softplus)
    softplus.defvjp(lambda x: (plain_softplus(x), x), lambda x, dy: (dy * jax.nn.sigmoid(x),))

    def test_gradient():
        check_custom_vjp(softplus, plain_softplus, jnp.linspace(-3.0, 3.0, 7))

    def test_memory():
        x = jnp.ones(1000, jnp.float32)
        assert saved_bytes(softplus, x) == (4000, 0)  # `x` itself and nothing else

If the first test fails, its message is the report, a `VjpReport` with a `Failure` for each check that failed:

    >>> import jax, jax.numpy as jnp
    >>> from jaxbn.testing import check_custom_vjp
    >>> sine = jax.custom_vjp(jnp.sin)
    >>> sine.defvjp(lambda x: (jnp.sin(x), x), lambda x, dy: (-dy * jnp.cos(x),))
    >>> report = check_custom_vjp(sine, jnp.sin, jnp.arange(3.0), raise_on_failure=False)
    >>> report.failures[0].argument, report.failures[0].cause
    ('x', 'the sign: got is −1 times what is wanted')
"""

from jaxbn.testing.check import check_custom_vjp
from jaxbn.testing.report import Failure, VjpMismatch, VjpReport
from jaxbn.testing.saved import SavedBytes, saved_bytes

__all__ = ["Failure", "SavedBytes", "VjpMismatch", "VjpReport", "check_custom_vjp", "saved_bytes"]
