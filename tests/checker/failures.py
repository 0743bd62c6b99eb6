"""What the check finds in a rule with a mistake."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxbn.testing import Failure, check_custom_vjp
from tests.support.layers import with_rule


def failures(rule: Any, reference: Any, *args: Any, **options: Any) -> list[Failure]:
    options = {"transforms": (), **options}
    return list(check_custom_vjp(rule, reference, *args, raise_on_failure=False, **options).failures)


def with_argument(found: list[Failure], argument: str | None) -> list[Failure]:
    return [failure for failure in found if failure.argument == argument and failure.check in ("gradient", "raises")]


def one_argument(bwd: Any, forward: Any = jnp.sin) -> Any:
    def function(x: jax.Array) -> jax.Array:
        return forward(x)

    return with_rule(function, lambda x: (forward(x), x), bwd), function
