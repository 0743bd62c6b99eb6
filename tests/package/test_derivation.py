"""`jaxbn.derivation` against truths that share no code with it: adjoints, `jax.lax`, autodiff of a plain batch norm."""

import doctest
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbn import derivation

# Input channels, output channels, image, kernel. No two sides agree where a swapped axis could hide.
CONVOLUTIONS = [
    (1, 1, (5, 5), (3, 3)),
    (2, 3, (5, 7), (3, 3)),
    (3, 2, (6, 4), (1, 3)),
    (2, 4, (4, 6), (3, 5)),
    (4, 2, (7, 3), (5, 1)),
    (3, 5, (3, 4), (1, 1)),
    (2, 3, (3, 5), (3, 5)),
]


# Batch, channels, height, width: m = 2, 3, 3, 12 and 40.
BATCH_NORMS = [(2, 3, 1, 1), (3, 2, 1, 1), (1, 4, 1, 3), (2, 5, 3, 2), (2, 3, 4, 5)]
every_convolution = pytest.mark.parametrize(
    ("channels", "filters", "image", "sides"), CONVOLUTIONS, ids=lambda value: str(value).replace(" ", "")
)


both_paddings = pytest.mark.parametrize("zero_padding", [False, True], ids=["valid", "padded"])
every_batch_norm = pytest.mark.parametrize("shape", BATCH_NORMS, ids=str)


def integers(*shape, seed):
    """Whole numbers: sums of their products are exact in float64, so equality needs no tolerance."""
    return np.random.default_rng(seed).integers(-9, 10, shape).astype(np.float64)


@partial(jax.jit, static_argnames="zero_padding")
def lax_convolution(a, kernel, zero_padding):
    """D3 without its bias, by XLA, which cross-correlates and so takes the kernel rotated by 180°."""
    padding = "SAME" if zero_padding else "VALID"
    return jax.lax.conv_general_dilated(a[None], kernel[:, :, ::-1, ::-1], (1, 1), padding)[0]


@jax.jit
def plain_batch_norm(direct, for_mean, for_variance, gamma, beta, epsilon):
    """Batch norm with one argument for each way that C takes to y; the real one has C for all three."""
    mean = jnp.mean(for_mean, axis=(0, 2, 3), keepdims=True)
    variance = jnp.var(for_variance, axis=(0, 2, 3), keepdims=True)
    gamma, beta = gamma.reshape(1, -1, 1, 1), beta.reshape(1, -1, 1, 1)
    return gamma * (direct - mean) / jnp.sqrt(variance + epsilon) + beta


def assert_close(got, want, tolerance=1e-12):
    assert got.shape == want.shape
    assert np.max(np.abs(got - want)) <= tolerance * np.max(np.abs(want))


def batch_norm_case(shape, seed=0):
    """C with a mean, a gamma and a beta for each channel, and a cotangent."""
    rng = np.random.default_rng(seed)
    C, delta = rng.normal(2.0, 3.0, shape), rng.normal(size=shape)
    gamma, beta = rng.normal(1.0, 0.5, shape[1]), rng.normal(size=shape[1])
    return C, gamma, beta, delta


def test_the_worked_examples_run():
    result = doctest.testmod(derivation)
    assert result.attempted >= 14
    assert result.failed == 0


@both_paddings
@pytest.mark.parametrize(("image", "sides"), [case[2:] for case in CONVOLUTIONS], ids=str)
def test_one_channel_is_jax_lax(image, sides, zero_padding):
    img, kernel = integers(*image, seed=1), integers(*sides, seed=2)
    correlated = derivation.cross_correlation(img, kernel, zero_padding=zero_padding)
    convolved = derivation.convolution(img, kernel, zero_padding=zero_padding)
    np.testing.assert_array_equal(convolved, lax_convolution(img[None], kernel[None, None], zero_padding)[0])
    rotated = np.rot90(kernel, 2)
    np.testing.assert_array_equal(correlated, lax_convolution(img[None], rotated[None, None], zero_padding)[0])


@both_paddings
@every_convolution
def test_conv_layer_is_jax_lax(channels, filters, image, sides, zero_padding):
    a, kernel = integers(channels, *image, seed=3), integers(filters, channels, *sides, seed=4)
    bias = integers(filters, seed=5)
    want = np.asarray(lax_convolution(a, kernel, zero_padding))
    np.testing.assert_array_equal(derivation.conv_layer(a, kernel, zero_padding=zero_padding), want)
    with_bias = derivation.conv_layer(a, kernel, bias, zero_padding=zero_padding)
    np.testing.assert_array_equal(with_bias, want + bias[:, None, None])


@both_paddings
@every_convolution
def test_conv_gradients_are_adjoint_to_the_layer(channels, filters, image, sides, zero_padding):
    """⟨δ, conv_layer(a, K) + b⟩ = ⟨a, ∂a⟩ + ⟨b, ∂b⟩ = ⟨K, ∂K⟩ + ⟨b, ∂b⟩, whatever a, K, b and δ."""
    for seed in range(3):
        a, kernel = integers(channels, *image, seed=10 + seed), integers(filters, channels, *sides, seed=20 + seed)
        bias = integers(filters, seed=30 + seed)
        C = derivation.conv_layer(a, kernel, bias, zero_padding=zero_padding)
        delta = integers(*C.shape, seed=40 + seed)
        of_input = derivation.conv_input_gradient(delta, kernel, zero_padding=zero_padding)
        of_kernel = derivation.conv_kernel_gradient(a, delta, zero_padding=zero_padding, kernel_sides=sides)
        of_bias = np.vdot(bias, derivation.conv_bias_gradient(delta))
        assert of_input.shape == a.shape
        assert of_kernel.shape == kernel.shape
        assert np.vdot(delta, C) == np.vdot(a, of_input) + of_bias
        assert np.vdot(delta, C) == np.vdot(kernel, of_kernel) + of_bias


@both_paddings
@every_convolution
def test_conv_gradients_are_autodiffs(channels, filters, image, sides, zero_padding):
    a, kernel = integers(channels, *image, seed=6), integers(filters, channels, *sides, seed=7)
    delta = integers(*derivation.conv_layer(a, kernel, zero_padding=zero_padding).shape, seed=8)

    @jax.jit
    def pullback(delta):
        return jax.vjp(lambda a, kernel: lax_convolution(a, kernel, zero_padding), a, kernel)[1](delta)

    of_input, of_kernel = map(np.asarray, pullback(delta))
    got = derivation.conv_input_gradient(delta, kernel, zero_padding=zero_padding)
    np.testing.assert_array_equal(got, of_input)
    got = derivation.conv_kernel_gradient(a, delta, zero_padding=zero_padding, kernel_sides=sides)
    np.testing.assert_array_equal(got, of_kernel)


@every_convolution
def test_the_valid_region_tells_the_kernels_sides(channels, filters, image, sides):
    a = integers(channels, *image, seed=9)
    delta = integers(filters, image[0] - sides[0] + 1, image[1] - sides[1] + 1, seed=10)
    told = derivation.conv_kernel_gradient(a, delta)
    np.testing.assert_array_equal(told, derivation.conv_kernel_gradient(a, delta, kernel_sides=sides))


def test_with_zero_padding_the_corner_of_d6_gets_more_terms():
    delta, kernel = integers(1, 5, 5, seed=11), integers(1, 1, 3, 3, seed=12)
    corner = derivation.conv_input_gradient(delta, kernel, zero_padding=True)[0, 0, 0]
    assert corner == np.vdot(delta[0, :2, :2], kernel[0, 0, 1:, 1:])


@pytest.mark.parametrize("epsilon", [1e-5, 0.1])
@every_batch_norm
def test_batch_norm_is_the_plain_one(shape, epsilon):
    C, gamma, beta, _ = batch_norm_case(shape)
    want = plain_batch_norm(C, C, C, gamma, beta, epsilon)
    assert_close(derivation.batch_norm(C, gamma, beta, epsilon), np.asarray(want))


@pytest.mark.parametrize("epsilon", [1e-5, 0.1])
@every_batch_norm
def test_batch_norm_gradients_are_autodiffs(shape, epsilon):
    C, gamma, beta, _ = batch_norm_case(shape)

    @jax.jit
    def pullback(delta):
        def forward(C, gamma, beta):
            return plain_batch_norm(C, C, C, gamma, beta, epsilon)

        return jax.vjp(forward, C, gamma, beta)[1](delta)

    # Over two values the input gradient is what cancellation leaves of its terms.
    tolerance = 1e-9 if C.size // shape[1] == 2 else 1e-12
    for seed in range(1, 6):
        delta = batch_norm_case(shape, seed)[-1]
        of_input, of_gamma, of_beta = map(np.asarray, pullback(delta))
        assert_close(derivation.batch_norm_input_gradient(C, gamma, delta, epsilon).total, of_input, tolerance)
        assert_close(derivation.batch_norm_gamma_gradient(C, delta, epsilon), of_gamma)
        assert_close(derivation.batch_norm_beta_gradient(delta), of_beta)


@pytest.mark.parametrize("epsilon", [1e-5, 0.1])
@every_batch_norm
def test_each_of_the_three_terms_is_autodiffs(shape, epsilon):
    C, gamma, beta, _ = batch_norm_case(shape)

    @jax.jit
    def pullback(delta):
        def forward(direct, for_mean, for_variance):
            return plain_batch_norm(direct, for_mean, for_variance, gamma, beta, epsilon)

        return jax.vjp(forward, C, C, C)[1](delta)

    for seed in range(1, 6):
        delta = batch_norm_case(shape, seed)[-1]
        terms = derivation.batch_norm_input_gradient(C, gamma, delta, epsilon)
        direct, through_mean, through_variance = map(np.asarray, pullback(delta))
        assert_close(terms.direct, direct)
        assert_close(terms.through_mean, through_mean)
        assert_close(terms.through_variance, through_variance)


def test_one_value_a_channel_gives_beta_and_no_gradient():
    C, gamma, beta, delta = batch_norm_case((1, 7, 1, 1))
    np.testing.assert_array_equal(derivation.batch_norm(C, gamma, beta, 1e-5).ravel(), beta)
    assert not np.any(derivation.batch_norm_input_gradient(C, gamma, delta, 1e-5).total)


def test_channels_do_not_cross_talk():
    C, gamma, beta, delta = batch_norm_case((3, 2, 2, 5))
    spoilt = C.copy()
    spoilt[:, 0] = np.nan

    def others(C):
        total = derivation.batch_norm_input_gradient(C, gamma, delta, 1e-5).total
        y, of_gamma = derivation.batch_norm(C, gamma, beta, 1e-5), derivation.batch_norm_gamma_gradient(C, delta, 1e-5)
        return np.concatenate([total[:, 1].ravel(), y[:, 1].ravel(), of_gamma[1:]])

    np.testing.assert_array_equal(others(spoilt), others(C))
    assert np.all(np.isfinite(others(C)))


def test_gradient_step_descends():
    """On ½‖K - target‖², whose gradient is K - target, a step of ½ halves the distance."""
    target, start = integers(2, 3, seed=13), integers(2, 3, seed=14)
    kernel = start
    for _ in range(4):
        kernel = derivation.gradient_step(kernel, kernel - target, learning_rate=0.5)
    np.testing.assert_array_equal(kernel - target, (start - target) / 16)
