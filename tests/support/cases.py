"""The rows of the tables of cases, which are `tests.conv.cases`, `tests.norm.cases` and `tests.fused.cases`.

A case is an operation's name, the shapes of its arrays and its options. `Case.function` turns it into a function of the
arrays alone, for the public operation or for its reference, so that every test can be run on every case.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.support.batch_norm_in_parts import spread

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Case:
    """One call; an argument whose shape is ``None`` is left out."""

    operation: str
    shapes: dict[str, Shape | None]
    options: dict[str, Any] = field(default_factory=dict)
    tolerance: float = 1e-12  # of the ∞-norm, in float64

    def __str__(self) -> str:
        given = {name: shape for name, shape in self.shapes.items() if shape is not None} | self.options
        words = (f"{name}={value}".replace(" ", "").replace("'", "") for name, value in given.items())
        return f"{self.operation}({','.join(words)})"

    @property
    def names(self) -> list[str]:
        return [name for name, shape in self.shapes.items() if shape is not None]

    def arrays(self, seed: int = 0, dtype: Any = jnp.float64) -> list[jax.Array]:
        """Normal ones, but a variance, which is positive, and a scale, which is away from zero."""
        generator = np.random.default_rng(seed)
        arrays = []
        for name in self.names:
            values = generator.normal(size=self.shapes[name])
            values = {"var": 0.5 + np.abs(values), "gamma": 1 + 0.3 * values}.get(name, values)
            arrays.append(jnp.asarray(values, dtype))
        return arrays

    @property
    def plain(self) -> "Case":
        """The same numbers by plain JAX, which chooses no algorithm and has all in one place."""
        return self._without("algorithm", "spread")

    @property
    def in_forward_mode(self) -> "Case":
        """The same call, with a tangent rule."""
        return replace(self, options={**self.options, "forward_mode": True})

    def _without(self, *options: str) -> "Case":
        return replace(self, options={name: value for name, value in self.options.items() if name not in options})

    def function(self, module: ModuleType) -> Callable[..., list[jax.Array]]:
        """The floating-point outputs as a function of the arrays, in `names`' order; the same one at every call."""
        key = (str(self), module.__name__)
        if key not in _FUNCTIONS:
            # The reference has every mode of autodiff anyway.
            case = self._without("forward_mode") if module.__name__ == "jaxbn.reference" else self
            _FUNCTIONS[key] = partial(call, case, getattr(module, self.operation))
        return _FUNCTIONS[key]


# By case and module, so that a test that asks again meets what JAX has compiled already.
_FUNCTIONS: dict[tuple[str, str], Callable[..., list[jax.Array]]] = {}


def call(case: Case, operation: Callable[..., Any], *arrays: jax.Array) -> list[jax.Array]:
    given, options = dict(zip(case.names, arrays, strict=True)), dict(case.options)
    if "spread" in options:
        operation = spread(options.pop("spread"), operation)
    if "where" in options:
        options["where"] = mask(options["where"], arrays[0].shape, options.get("axis", -1))
    if "activation" in options:  # whose place is between the arrays
        options["activation"] = activation(options["activation"], given.pop("slope", None))
        outputs = operation(**dict.fromkeys(set(case.shapes) - {"slope"}) | given, **options)
    else:
        outputs = operation(*(given.get(name) for name in case.shapes), **options)
    return [leaf for leaf in jax.tree.leaves(outputs) if jnp.issubdtype(leaf.dtype, jnp.floating)]


def activation(name: str, slope: jax.Array | None) -> Callable[[jax.Array], jax.Array]:
    """What the option ``activation`` of a case stands for; a PReLU closes over its slope."""
    return (
        getattr(jax.nn, name)
        if slope is None
        else lambda z: jnp.where(z > 0, z, jnp.expand_dims(slope.astype(z.dtype), range(z.ndim - 1)) * z)
    )


IMAGES = {1: (11,), 2: (9, 7), 3: (6, 5, 7)}
LAYOUTS: dict[int, list[Any]] = {
    1: [None, ("NCW", "OIW", "NCW"), ("WNC", "IWO", "CNW")],
    2: [None, ("NCHW", "OIHW", "NCHW"), ("HWNC", "OHWI", "CHWN"), ("NCHW", "HWIO", "NHWC")],
    3: [None, ("NCDHW", "OIDHW", "NCDHW")],
}


def axes(shape: Shape, canonical: str, wanted: str) -> Shape:
    return tuple(shape[canonical.index(letter)] for letter in wanted)


def conv_case(
    operation: str,
    spatial: int,
    window: tuple[Shape, Any, Any],
    padding: Any,
    channels: Shape,
    layout: Any,
    **options: Any,
) -> Case:
    taps, stride, dilation = window
    features_in, features_out, groups = channels
    kernel: Shape = (*taps, features_in // groups, features_out)
    if operation == "conv_transpose":
        features_in, features_out = features_out, features_in
    x: Shape = (2, *IMAGES[spatial], features_in)
    if layout is not None:
        space = "DHW"[3 - spatial :]
        x, kernel = axes(x, f"N{space}C", layout[0]), axes(kernel, f"{space}IO", layout[1])
        options["dimension_numbers"] = layout
    bias = (features_out,) if options.pop("bias", True) else None
    given = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups} | options
    return Case(operation, {"x": x, "kernel": kernel, "bias": bias}, given)


def norm_case(operation: str, shape: Shape, axis: int, given: Shape, **options: Any) -> Case:
    """``given`` says which of γ and β there are."""
    vector = (shape[axis],)
    vectors = dict(zip(("gamma", "beta"), (vector if each else None for each in given), strict=True))
    moments = {"mean": vector, "var": vector} if operation == "batch_norm_inference" else {}
    # Over two values x̂ is ±1 whatever x is: dx is a small difference of large terms.
    tolerance = 1e-9 if operation == "batch_norm" and math.prod(shape) == 2 * shape[axis] else 1e-12
    return Case(operation, {"x": shape, **moments, **vectors}, {"axis": axis, **options}, tolerance)


MASKS = ("all", "none", "one", "random", "images", "a channel less", "without leading axes")


def mask(kind: str, shape: Shape, axis: int) -> jax.Array:
    """What the option ``where`` of a case stands for: a mask for an ``x`` of that shape."""
    random = np.random.default_rng(3).random(shape) < 0.6
    first = np.zeros(shape, bool)
    first[(0,) * len(shape)] = True
    channels = np.arange(shape[axis]) > 0
    along = [-1 if other == axis % len(shape) else 1 for other in range(len(shape))]
    kinds = {
        "all": np.ones(shape, bool),
        "none": np.zeros(shape, bool),
        "one": first,
        "random": random,
        "images": np.arange(shape[0]).reshape(-1, *[1] * (len(shape) - 1)) < max(shape[0] - 1, 1),
        "a channel less": random & channels.reshape(along),
        "without leading axes": random[0],
    }
    return jnp.asarray(kinds[kind])


def act_case(shape: Shape, axis: int, name: str, **options: Any) -> Case:
    """A `batch_norm_act` with a residual connection. A PReLU has a slope for each entry of the last axis."""
    slope = {"slope": shape[-1:]} if name == "prelu" else {}
    shapes: dict[str, Shape | None] = {"x": shape, "gamma": (shape[axis],), "beta": (shape[axis],), "residual": shape}
    return Case("batch_norm_act", shapes | slope, {"axis": axis, "activation": name, **options})


def fused_conv_case(shape: Shape, window: tuple[Shape, Any, Any], features: int, given: Shape, **options: Any) -> Case:
    """``given`` says which of γ, β and the bias there are. The layout, if any, is that of `LAYOUTS`."""
    (taps, stride, dilation), groups, layout = window, options.get("groups", 1), options.get("dimension_numbers")
    kernel: Shape = (*taps, shape[-1] // groups, features)
    vector, out = (shape[-1],), (features,)
    if layout is not None:
        shape, kernel = axes(shape, "NHWC", layout[0]), axes(kernel, "HWIO", layout[1])
    gamma, beta, bias = (size if each else None for size, each in zip((vector, vector, out), given, strict=True))
    shapes = {"x": shape, "gamma": gamma, "beta": beta, "kernel": kernel, "bias": bias}
    return Case("batch_norm_relu_conv", shapes, {"stride": stride, "dilation": dilation, **options})
