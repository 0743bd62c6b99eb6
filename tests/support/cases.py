"""The one table of cases: every operation, every option, shapes whose sides all differ.

A case is an operation's name, the shapes of its arrays and its options. `Case.function` turns it into a function of the
arrays alone, for the public operation or for its reference, so that every test can be run on every case.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import cycle, product
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
        return replace(self, options={k: v for k, v in self.options.items() if k not in ("algorithm", "spread")})

    def function(self, module: ModuleType) -> Callable[..., list[jax.Array]]:
        """The floating-point outputs as a function of the arrays, in `names`' order; the same one at every call."""
        key = (str(self), module.__name__)
        if key not in _FUNCTIONS:
            _FUNCTIONS[key] = partial(call, self, getattr(module, self.operation))
        return _FUNCTIONS[key]


# By case and module, so that a test that asks again meets what JAX has compiled already.
_FUNCTIONS: dict[tuple[str, str], Callable[..., list[jax.Array]]] = {}


def call(case: Case, operation: Callable[..., Any], *arrays: jax.Array) -> list[jax.Array]:
    given, options = dict(zip(case.names, arrays, strict=True)), dict(case.options)
    if "spread" in options:
        operation = spread(options.pop("spread"), operation)
    if "where" in options:
        options["where"] = mask(options["where"], arrays[0].shape, options.get("axis", -1))
    outputs = operation(*(given.get(name) for name in case.shapes), **options)
    return [leaf for leaf in jax.tree.leaves(outputs) if jnp.issubdtype(leaf.dtype, jnp.floating)]


# ------------------------------------------------------------------------------------------------------ convolution

IMAGES = {1: (11,), 2: (9, 7), 3: (6, 5, 7)}

# Window, stride and dilation: even and odd, larger than the stride and smaller, with rows left over.
WINDOWS: dict[int, list[tuple[Shape, Any, Any]]] = {
    1: [((3,), 1, 1), ((4,), 2, 1), ((2,), 3, 1), ((3,), 2, 2), ((1,), 1, 1), ((5,), 1, 2), ((1,), 2, 1)],
    2: [
        ((3, 3), 1, 1),
        ((3, 2), 2, 1),
        ((2, 3), (3, 2), 1),
        ((3, 2), 1, 2),
        ((1, 1), 1, 1),
        ((1, 1), 2, 1),
        ((2, 2), 2, 1),
        ((4, 3), (1, 2), (2, 1)),
        ((5, 1), 1, 1),
        ((2, 1), 3, (1, 2)),
    ],
    3: [((2, 3, 2), 1, 1), ((3, 2, 3), 2, 1), ((2, 2, 2), (1, 2, 3), (2, 1, 1)), ((1, 1, 1), 1, 1)],
}

# Channels in and out, and groups: one, some, depthwise, depthwise with several filters each, single ones.
CHANNELS = [(3, 5, 1), (4, 6, 2), (4, 4, 4), (3, 6, 3), (1, 2, 1)]

PADDINGS: dict[int, list[Any]] = {
    1: ["VALID", "SAME", "SAME_LOWER", 1, ((2, 0),), ((-1, 3),)],
    2: ["VALID", "SAME", "SAME_LOWER", 1, ((2, 0), (0, 1)), ((-1, 3), (1, -2))],
    3: ["VALID", "SAME", "SAME_LOWER", 1, ((2, 0), (0, 1), (1, 1)), ((-1, 3), (1, -2), (0, 0))],
}

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


def conv_cases(operation: str) -> Iterator[Case]:
    """Each window with each padding; channels, layouts and the rest take turns, with periods that do not divide."""
    for spatial in (1, 2, 3):
        turns = zip(
            cycle(CHANNELS),
            cycle([*LAYOUTS[spatial], None, None, None]),
            cycle([False, False, True]),
            cycle([True, True, True, False]),
            product(WINDOWS[spatial], PADDINGS[spatial]),
        )
        for channels, layout, flip, bias, (window, padding) in turns:
            yield conv_case(operation, spatial, window, padding, channels, layout, flip_kernel=flip, bias=bias)


def with_output_padding() -> Iterator[Case]:
    for stride, dilation, extra in [(2, 1, 1), (3, 2, 2), (1, 3, 2), ((2, 3), (1, 1), (1, 0)), (2, 3, 2)]:
        for padding in (0, 1, ((0, 2), (1, 0)), ((-1, 0), (2, 2))):
            window = ((3, 2), stride, dilation)
            yield conv_case("conv_transpose", 2, window, padding, (4, 6, 2), None, output_padding=extra)


CONV_CASES = [
    *conv_cases("conv"),
    # A kernel as large as the image, one larger with room from padding alone, no window that fits, no image.
    Case("conv", {"x": (2, 5, 4, 3), "kernel": (5, 4, 3, 2), "bias": (2,)}),
    Case("conv", {"x": (2, 2, 3, 3), "kernel": (5, 4, 3, 2), "bias": (2,)}, {"padding": 2}),
    Case("conv", {"x": (2, 2, 6, 3), "kernel": (3, 3, 3, 2), "bias": (2,)}),
    Case("conv", {"x": (0, 5, 6, 3), "kernel": (3, 3, 3, 2), "bias": (2,)}),
    Case("conv", {"x": (3, 8, 6, 2), "kernel": (2, 2, 2, 4), "bias": None}, {"stride": 5}),
]
CONV_TRANSPOSE_CASES = [
    *(case for case in list(conv_cases("conv_transpose"))[::2]),
    *with_output_padding(),
    Case("conv_transpose", {"x": (0, 5, 6, 2), "kernel": (3, 3, 3, 2), "bias": (3,)}, {"stride": 2}),
]


# ------------------------------------------------------------------------------------------------ batch normalisation


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


def norm_cases(operation: str) -> Iterator[Case]:
    shapes = [
        ((2, 5), -1),
        ((3, 5), 1),
        ((7, 4), 0),
        ((1, 6), -1),
        ((5, 1), -1),
        ((2, 6, 3), -1),
        ((3, 4, 5), 1),
        ((2, 3, 5, 4), -1),
        ((2, 3, 5, 4), 1),
        ((3, 5, 2, 4), -4),
        ((2, 2, 3, 4, 5), -1),
        ((2, 4, 3, 2, 5), 1),
        ((1, 4, 4, 1), 3),
    ]
    given = [(1, 1), (1, 0), (0, 1), (0, 0)]
    for (shape, axis), scale_and_shift in product(shapes, given):
        yield norm_case(operation, shape, axis, scale_and_shift)
    for epsilon in (1e-12, 1e-3, 1.0):
        yield norm_case(operation, (4, 3, 5), -1, (1, 1), epsilon=epsilon)


def masked_cases(operation: str) -> Iterator[Case]:
    for kind, (shape, axis) in product(MASKS, [((5, 4, 3), -1), ((4, 3, 5, 2), 1), ((3, 4), 0)]):
        yield norm_case(operation, shape, axis, (1, 1), where=kind)


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


FUSED_CASES = [
    *(
        norm_case("batch_norm_relu", (3, 4, 5), axis, given)
        for axis, given in product((1, -1), [(1, 1), (1, 0), (0, 1)])
    ),
    *(norm_case("batch_norm_relu", (4, 3, 5, 2), 1, (1, 1), where=kind, epsilon=1e-2) for kind in MASKS),
    fused_conv_case((2, 5, 6, 4), ((3, 2), 1, 1), 3, (1, 1, 1), padding="SAME"),
    fused_conv_case((3, 5, 6, 4), ((3, 2), (2, 1), 1), 3, (1, 0, 0), padding=1, epsilon=1e-2),
    fused_conv_case((3, 6, 7, 4), ((2, 3), 1, 2), 6, (0, 1, 1), groups=2, flip_kernel=True),
    fused_conv_case((2, 5, 6, 4), ((1, 1), 1, 1), 3, (0, 0, 1), where="random"),
    fused_conv_case((3, 5, 6, 4), ((2, 2), 2, 1), 5, (1, 1, 1), where="images", padding=((1, 0), (0, 2))),
    fused_conv_case((3, 5, 6, 4), ((3, 2), 2, 1), 5, (1, 1, 1), dimension_numbers=LAYOUTS[2][1]),
    fused_conv_case((3, 5, 6, 4), ((2, 3), 1, 1), 5, (1, 1, 0), dimension_numbers=LAYOUTS[2][2]),
    Case(
        "batch_norm_relu_conv",
        {"x": (4, 7, 3), "gamma": (3,), "beta": (3,), "kernel": (3, 1, 6), "bias": None},
        {"groups": 3, "padding": "SAME_LOWER"},
    ),
    Case(
        "batch_norm_relu_conv",
        {"x": (2, 4, 3, 5, 2), "gamma": (2,), "beta": (2,), "kernel": (2, 1, 3, 2, 3), "bias": (3,)},
    ),
]

NORM_CASES = [*norm_cases("batch_norm"), *masked_cases("batch_norm"), *norm_cases("batch_norm_inference")]

ALL_CASES = [*CONV_CASES, *CONV_TRANSPOSE_CASES, *NORM_CASES, *FUSED_CASES]

# A few that together touch every operation and option, for what is too costly to try on all.
COVERING_CASES = [
    *(
        conv_case("conv", 2, ((3, 2), (1, 2), (2, 1)), padding, channels, layout, flip_kernel=flip)
        for padding, channels, layout, flip in [
            ("SAME", (3, 5, 1), None, False),
            ("VALID", (4, 6, 2), LAYOUTS[2][1], True),
            (((1, -1), (0, 2)), (3, 6, 3), None, False),
        ]
    ),
    conv_case("conv", 2, ((1, 1), 1, 1), "VALID", (3, 5, 1), None, bias=False),
    conv_case("conv", 2, ((2, 2), 2, 1), "VALID", (3, 5, 1), None),
    conv_case("conv", 1, ((3,), 1, 1), 1, (4, 4, 4), None),
    conv_case("conv", 3, ((2, 3, 2), 2, 1), "SAME_LOWER", (3, 5, 1), None),
    conv_case("conv_transpose", 2, ((3, 2), 2, 1), "SAME", (3, 5, 1), None),
    conv_case("conv_transpose", 2, ((3, 2), 2, 3), 1, (4, 6, 2), LAYOUTS[2][1], output_padding=2, flip_kernel=True),
    conv_case("conv_transpose", 3, ((2, 3, 2), 2, 1), "VALID", (3, 6, 3), None, bias=False),
    norm_case("batch_norm", (3, 5), -1, (1, 1)),
    norm_case("batch_norm", (3, 4, 5, 2), 1, (1, 1)),
    norm_case("batch_norm", (3, 2, 4), -1, (0, 0)),
    norm_case("batch_norm", (3, 5, 4, 2), -1, (1, 1), where="random"),
    norm_case("batch_norm_relu", (3, 4, 5, 2), 1, (1, 1), where="random"),
    fused_conv_case((3, 5, 4, 2), ((3, 2), (1, 2), 1), 3, (1, 1, 1), padding="SAME"),
    norm_case("batch_norm_inference", (3, 2, 4), -1, (1, 1)),
    norm_case("batch_norm_inference", (3, 4, 5, 2), 1, (0, 1)),
]
