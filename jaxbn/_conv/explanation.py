"""`explain_conv`: which algorithms compute a convolution and its gradients, without computing them."""

from itertools import starmap
from typing import Any, NamedTuple

import jax
from jax import lax
from jax.extend.backend import get_backend
from jax.typing import DTypeLike

from jaxbn._conv.algorithms.table import MAPS, choose
from jaxbn._conv.options import ConvOptions, DimensionNumbers, PaddingOption, Steps
from jaxbn._conv.primitives import PLATFORMS
from jaxbn._validation import as_array, public


class Choice(NamedTuple):
    """An algorithm's name, as ``algorithm=`` takes it, and why it was chosen."""

    algorithm: str
    why: str


class ConvExplanation(NamedTuple):
    """The algorithm of each of the three maps; its ``str`` has one line for each map."""

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
    stride: Steps = 1,
    padding: PaddingOption = "VALID",
    padding_mode: str | tuple[str, ...] = "zeros",
    dilation: Steps = 1,
    groups: int = 1,
    flip_kernel: bool = False,
    dimension_numbers: DimensionNumbers = None,
    precision: lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
    algorithm: str | None = None,
    platform: str | None = None,
) -> ConvExplanation:
    """Says which algorithm computes each of the three maps of ``conv(x, kernel, bias, ...)``, and why.

        y = Σ x · K,  dx = Σ dy · K,  dK = Σ x · dy

    Nothing is computed or saved: ``x`` and ``kernel`` may be `jax.ShapeDtypeStruct`. On a CPU, the dense algorithm may
    compute a large batch a few images at a time.

    Args:
        x, kernel, bias: As in `conv`.
        stride, padding, padding_mode, dilation, groups, flip_kernel, dimension_numbers, precision,
            preferred_element_type, algorithm: As in `conv`.
        platform: The platform that the program is compiled for, ``"cpu"``, ``"cuda"``, ``"rocm"`` or ``"tpu"``;
            ``None`` is that of the default device.

    Returns:
        A `ConvExplanation`: an algorithm and a reason for each map.

    Raises:
        TypeError, ValueError: As in `conv`; or ``platform`` is unknown.

    Example:
        >>> import jax.numpy as jnp, jaxbn
        >>> x, kernel = jnp.ones((8, 14, 14, 64)), jnp.ones((1, 1, 64, 32))
        >>> jaxbn.explain_conv(x, kernel, platform="cuda").kernel_gradient.algorithm
        'pointwise'

    References:
        Deck, D3, D5 and D7 for the maps.
    """
    options = ConvOptions(
        function="explain_conv",
        stride=stride,
        padding=padding,
        padding_mode=padding_mode,
        dilation=dilation,
        groups=groups,
        flip_kernel=flip_kernel,
        dimension_numbers=dimension_numbers,
        precision=precision,
        preferred_element_type=preferred_element_type,
        algorithm=algorithm,
    )
    x, kernel = (
        operand if isinstance(operand, jax.ShapeDtypeStruct) else as_array("explain_conv", argument, operand)
        for argument, operand in (("x", x), ("kernel", kernel))
    )
    spec = options.resolve(x, kernel, bias).spec
    if platform is not None and platform not in PLATFORMS:
        raise ValueError(f"explain_conv: `platform` is {platform!r}; it must be None or one of {PLATFORMS}")
    platform = platform or _default_platform()
    choices = (choose(name, spec.geometry, platform, spec.algorithm, native=platform == "cpu") for name in MAPS)
    return ConvExplanation(*starmap(Choice, choices))


def _default_platform() -> str:
    """The name under which programs are lowered, where "gpu" is either "cuda" or "rocm"."""
    backend = jax.default_backend()
    if backend != "gpu":
        return backend
    return "rocm" if "rocm" in get_backend().platform_version.lower() else "cuda"
