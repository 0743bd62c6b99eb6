"""Every algorithm, forced, against the transpositions that JAX itself makes of the plain convolution."""

import itertools
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxbn
from jaxbn._conv.algorithms.algorithm import Context
from jaxbn._conv.algorithms.table import ALGORITHMS, MAPS, run
from jaxbn._conv.geometry import ConvGeometry
from jaxbn._conv.layout import CHANNELS_LAST
from jaxbn._conv.spec import Arithmetic
from tests.support.sample import covering, rotated, sample_of

PLATFORMS = ("cpu", "cuda")


def _draw(rng: np.random.Generator) -> ConvGeometry:
    """A geometry with an output, of sides that differ."""
    spatial = rng.choice([1, 2, 2, 3])

    def each(*choices: int) -> tuple[int, ...]:
        return tuple(int(rng.choice(choices)) for _ in range(spatial))

    groups, channels_in, channels_out = (int(rng.choice(choices)) for choices in ([1, 1, 2, 3], [1, 2], [1, 2, 3]))
    window, dilation, ones = each(1, 2, 3, 4), each(1, 1, 2, 3), (1,) * spatial
    window = ones if rng.random() < 0.15 else window
    stride = {0: ones, 1: window, 2: tuple(taps + 1 for taps in window)}.get(int(rng.integers(6)), each(1, 2, 3, 4))
    geometry = ConvGeometry(
        input=tuple(int(size) for size in rng.permutation(range(4, 12))[:spatial]),
        window=window,
        in_features=groups * channels_in,
        out_features=groups * channels_out,
        stride=stride,
        padding=tuple(zip(each(-1, 0, 0, 1, 2, 3), each(-1, 0, 0, 1, 2, 3), strict=True)),
        dilation=dilation if stride != window else ones,
        groups=groups,
        input_dilation=each(1, 2, 3) if rng.random() < 0.3 else ones,
    )
    return geometry if min(geometry.output) > 0 else _draw(rng)


def _plain(geometry: ConvGeometry, x: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        geometry.stride,
        geometry.padding,
        geometry.input_dilation,
        geometry.dilation,
        CHANNELS_LAST[x.ndim],
        geometry.groups,
    )


GEOMETRIES = [_draw(np.random.default_rng(seed)) for seed in range(60)]
Draw = tuple[int, str]  # a geometry's number, and a platform
DRAWS = rotated(range(60), PLATFORMS)


def _algorithms(geometry: ConvGeometry) -> list[str]:
    return [name for name, algorithm in ALGORITHMS.items() if algorithm.applies(geometry)]


def _facts(draw: Draw) -> list[Any]:
    """The algorithms on the platform, and what is out of the ordinary."""
    number, platform = draw
    geometry = GEOMETRIES[number]
    special = {
        "groups": geometry.groups > 1,
        "dilation": max(geometry.dilation) > 1,
        "input dilation": max(geometry.input_dilation) > 1,
        "negative padding": min(min(pair) for pair in geometry.padding) < 0,
        "a window larger than the stride": any(np.greater(geometry.window, geometry.stride)),
        "a stride larger than the window": any(np.less(geometry.window, geometry.stride)),
        f"{len(geometry.window)} dimensions": True,
    }
    return [
        *((name, platform) for name in _algorithms(geometry)),
        *(name for name, is_so in special.items() if is_so),
    ]


SAMPLED_DRAWS = covering(DRAWS, _facts, times=3)


@pytest.mark.parametrize("draw", SAMPLED_DRAWS)
def test_every_algorithm_is_right_wherever_it_applies(draw: Draw) -> None:
    """An algorithm for another platform must be right on this one too."""
    number, platform = draw
    rng, geometry = np.random.default_rng(number), GEOMETRIES[number]
    x, dy = (
        jnp.asarray(rng.normal(size=(2, *sizes, features)))
        for sizes, features in ((geometry.input, geometry.in_features), (geometry.output, geometry.out_features))
    )
    kernel = jnp.asarray(
        rng.normal(size=(*geometry.window, geometry.in_features // geometry.groups, geometry.out_features))
    )
    operands = {"convolve": (x, kernel), "input_gradient": (dy, kernel), "kernel_gradient": (x, dy)}
    context = Context(Arithmetic(), platform, on_one_device=True, native=False, run=run)

    @jax.jit
    def compute():
        y, pullback = jax.vjp(lambda x, kernel: _plain(geometry, x, kernel), x, kernel)
        got = {}
        for name, map_name in itertools.product(_algorithms(geometry), MAPS):
            of_name = replace(context, native=name == "native")
            got[name, map_name] = run(map_name, geometry, of_name, *operands[map_name], name)
        return dict(zip(MAPS, (y, *pullback(dy)), strict=True)), got

    want, got = compute()
    for (name, map_name), value in got.items():
        assert value.shape == want[map_name].shape, (name, map_name)
        scale = max(float(jnp.max(jnp.abs(want[map_name]))), 1e-3)
        error = float(jnp.max(jnp.abs(value - want[map_name]))) / scale
        assert error <= 1e-12, (name, map_name, platform, error, geometry)


def test_the_draws_reach_every_algorithm_on_every_platform() -> None:
    draws = sample_of(SAMPLED_DRAWS)
    reached = [(name, platform) for number, platform in draws for name in _algorithms(GEOMETRIES[number])]
    installed = [name for name in ALGORITHMS if name != "native" or jaxbn.native_kernels().available]
    for name, platform in itertools.product(installed, PLATFORMS):
        assert reached.count((name, platform)) >= 2, (name, platform)


def test_a_channel_of_nan_stays_in_its_group() -> None:
    x = jnp.ones((2, 5, 6, 8)).at[..., 0].set(jnp.nan)
    kernel = jnp.ones((3, 2, 2, 8))
    for name in ("depthwise", "grouped", "dense"):
        y = jaxbn.conv(x, kernel, groups=4, algorithm=name)
        assert bool(jnp.all(jnp.isnan(y[..., :2]))), name
        assert not bool(jnp.any(jnp.isnan(y[..., 2:]))), name


@pytest.mark.usefixtures("without_native_kernels")
@pytest.mark.parametrize(
    ("options", "x_shape", "kernel_shape", "want"),
    [
        ({}, (2, 8, 9, 4), (3, 3, 4, 6), ("dense", "dense", "dense")),
        ({}, (2, 8, 9, 4), (1, 1, 4, 6), ("pointwise", "pointwise", "pointwise")),
        ({"stride": 4}, (2, 8, 12, 4), (4, 4, 4, 6), ("dense", "patches", "dense")),
        ({"groups": 4}, (2, 8, 9, 4), (3, 3, 1, 4), ("depthwise", "depthwise", "depthwise")),
        ({"groups": 2}, (2, 8, 9, 16), (3, 3, 8, 16), ("grouped", "grouped", "grouped")),
        ({"stride": 2}, (2, 8, 9, 7, 4), (3, 3, 3, 4, 4), ("dense", "strided", "dense")),
    ],
)
def test_the_explanation_names_the_choice(options, x_shape, kernel_shape, want) -> None:
    x, kernel = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (x_shape, kernel_shape))
    explanation = jaxbn.explain_conv(x, kernel, platform="cpu", **options)
    assert tuple(choice.algorithm for choice in explanation) == want
    assert all(choice.why in str(explanation) for choice in explanation)
    forced = jaxbn.explain_conv(x, kernel, algorithm="dense", platform="cpu", **options)
    assert {choice.algorithm for choice in forced} == {"dense"}


def test_other_platforms_run_the_dense_algorithm() -> None:
    x, kernel = jnp.ones((2, 8, 9, 4)), jnp.ones((3, 3, 1, 4))
    explanation = jaxbn.explain_conv(x, kernel, groups=4, platform="tpu")
    assert {choice.algorithm for choice in explanation} == {"dense"}


@pytest.mark.parametrize(
    ("options", "x_shape", "kernel_shape", "want"),
    [
        ({}, (2, 8, 9, 4), (1, 1, 4, 6), ("pointwise", "pointwise", "pointwise")),
        ({"stride": 2}, (2, 8, 9, 4), (2, 2, 4, 6), ("dense", "dense", "dense")),
        ({"stride": 4}, (2, 8, 12, 4), (4, 4, 4, 6), ("patches", "patches", "patches")),
        ({"groups": 4}, (2, 8, 9, 4), (3, 3, 1, 4), ("dense", "dense", "dense")),
        ({"groups": 4}, (2, 8, 9, 4), (3, 3, 1, 8), ("depthwise", "depthwise", "depthwise")),
        ({"groups": 4}, (2, 8, 9, 8), (3, 3, 2, 8), ("depthwise", "depthwise", "dense")),
        ({"groups": 4}, (2, 8, 4), (3, 1, 4), ("depthwise", "depthwise", "depthwise")),
    ],
)
def test_on_a_gpu_cudnn_runs_what_it_is_better_at(options, x_shape, kernel_shape, want) -> None:
    x, kernel = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (x_shape, kernel_shape))
    explanation = jaxbn.explain_conv(x, kernel, platform="cuda", **options)
    assert tuple(choice.algorithm for choice in explanation) == want


def test_a_program_does_not_grow_with_the_taps_and_the_phases() -> None:
    def chosen(x_shape: tuple[int, ...], kernel_shape: tuple[int, ...], **options: Any) -> list[str]:
        x, kernel = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (x_shape, kernel_shape))
        return [choice.algorithm for choice in jaxbn.explain_conv(x, kernel, platform="cpu", **options)]

    assert "depthwise" not in chosen((1, 40, 40, 16), (31, 31, 1, 16), groups=16, padding="SAME")
    assert chosen((1, 64, 16), (32, 1, 16), groups=16, padding="SAME")[2] != "depthwise"
    x, kernel = jnp.ones((1, 9, 9, 9, 256)), jnp.ones((5, 5, 5, 16, 256))
    dx = jax.grad(lambda x: jnp.sum(jnp.sin(jaxbn.conv(x, kernel, stride=4, groups=16))))
    assert jax.jit(dx).lower(x).as_text().count("stablehlo.convolution") <= 100


def test_an_explanation_is_for_a_platform_that_exists() -> None:
    x, kernel = jnp.ones((2, 8, 9, 4)), jnp.ones((3, 3, 4, 4))
    with pytest.raises(ValueError, match=r"explain_conv: `platform` is 'gpu'; it must be None or one of .*'cuda'"):
        jaxbn.explain_conv(x, kernel, platform="gpu")


def test_an_algorithm_that_does_not_apply_is_refused() -> None:
    x, kernel = jnp.ones((2, 8, 9, 4)), jnp.ones((3, 3, 4, 4))
    with pytest.raises(ValueError, match=r"conv: `algorithm` is 'patches', which does not apply .*'dense' do"):
        jaxbn.conv(x, kernel, algorithm="patches")
    with pytest.raises(
        ValueError, match="conv_transpose: `algorithm` is 'fast'; it must be None or one of 'native', 'pointwise'"
    ):
        jaxbn.conv_transpose(x, kernel, algorithm="fast")
