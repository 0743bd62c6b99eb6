"""What runs a convolution and its gradients, said without running it."""

from typing import Any, NamedTuple

import jax
from jax import lax
from jax.extend.backend import get_backend
from jax.typing import DTypeLike

from jaxbn._conv.algorithms import choose
from jaxbn._conv.arguments import Options, arithmetic_of, conv_arguments
from jaxbn._conv.primitives import PLATFORMS
from jaxbn._validation import as_array, public


class Choice(NamedTuple):
    """An algorithm's name, as ``algorithm=`` takes it, and why it was chosen."""

    algorithm: str
    why: str


class ConvExplanation(NamedTuple):
    """What runs each of the three maps; its ``str`` is a line for each."""

    convolve: Choice
    input_gradient: Choice
    kernel_gradient: Choice

    def __str__(self) -> str:
        rows = self._asdict().items()
        return "\n".join(f"{name:15}  {choice.algorithm:10}  {choice.why}" for name, choice in rows)


@public
def explain_conv(
    x: Any,
    kernel: Any,
    bias: Any = None,
    *,
    stride: int | tuple[int, ...] = 1,
    padding: str | int | tuple[int | tuple[int, int], ...] = "VALID",
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
    flip_kernel: bool = False,
    dimension_numbers: Any = None,
    precision: lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
    algorithm: str | None = None,
    platform: str | None = None,
) -> ConvExplanation:
    """Says which algorithm runs the three maps of ``conv(x, kernel, bias, ...)``, and why.

        y = Σ x · K,  dx = Σ dy · K,  dK = Σ x · dy

    Nothing is computed or saved: ``x`` and ``kernel`` may be `jax.ShapeDtypeStruct`. On a CPU, what is dense may run on
    a few images of a large batch at a time.

    Args:
        x: As in `conv`, and so are all others.
        kernel: As in `conv`.
        bias: As in `conv`.
        stride: As in `conv`.
        padding: As in `conv`.
        dilation: As in `conv`.
        groups: As in `conv`.
        flip_kernel: As in `conv`.
        dimension_numbers: As in `conv`.
        precision: As in `conv`.
        preferred_element_type: As in `conv`.
        algorithm: As in `conv`.
        platform: That the program is compiled for, ``"cpu"``, ``"cuda"``, ``"rocm"`` or ``"tpu"``; ``None`` is the
            default device's.

    Returns:
        A `ConvExplanation`: for each map an algorithm and a reason.

    Raises:
        TypeError: As in `conv`.
        ValueError: As in `conv`; a ``platform`` that is none of these.

    Example:
        >>> import jax.numpy as jnp, jaxbn
        >>> x, kernel = jnp.ones((8, 14, 14, 64)), jnp.ones((1, 1, 64, 32))
        >>> jaxbn.explain_conv(x, kernel, platform="cpu").kernel_gradient.algorithm
        'pointwise'

    References:
        Deck, D3, D5 and D7 for the maps.
    """
    options = Options(
        "explain_conv",
        stride,
        padding,
        dilation,
        groups,
        flip_kernel,
        dimension_numbers,
        preferred_element_type,
        algorithm,
    )
    x, kernel = (
        each if isinstance(each, jax.ShapeDtypeStruct) else as_array("explain_conv", argument, each)
        for argument, each in (("x", x), ("kernel", kernel))
    )
    _, geometry = conv_arguments(options, x, kernel, bias)
    if platform is not None and platform not in PLATFORMS:
        raise ValueError(f"explain_conv: `platform` is {platform!r}; it must be None or one of {PLATFORMS}")
    arithmetic = arithmetic_of(options, geometry, precision)._replace(platform=platform or _default_platform())
    choices = {name: Choice(*choose(name, geometry, arithmetic)) for name in ConvExplanation._fields}
    return ConvExplanation(**choices)


def _default_platform() -> str:
    """By the name that programs are lowered under: "gpu" is two of them."""
    backend = jax.default_backend()
    if backend != "gpu":
        return backend
    return "rocm" if "rocm" in get_backend().platform_version.lower() else "cuda"
