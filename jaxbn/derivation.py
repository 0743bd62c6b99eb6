"""The formulas of the deck as executable code: every sum written out, in NumPy float64.

The functions use the letters, indices, sums and ids (D1, D2, …) of the deck, so that each can be compared with its
slide. They are slow and do not use JAX. The hand-written rules are tested against them. Where the deck has an error,
the code is right, and the docstring of the function says what was printed.

Notation. An image ``a(c,i,j)`` is I × J, with ``0 ≤ i < I`` and ``0 ≤ j < J``. A kernel ``K_k(c,n,m)`` has odd sides
N × M and is indexed from its centre, ``-(N-1)/2 ≤ n ≤ (N-1)/2`` and m likewise. Outputs ``C(k,i,j)`` and their
gradients ``δ(k,i,j) = ∂Loss/∂C(k,i,j)`` exist where the whole kernel lies on the image (the valid region):
``(N-1)/2 ≤ i < I-(N-1)/2`` and the same for j. With the zero padding of D9 they exist for every pixel. An array holds
only the entries that exist: in the valid region ``delta[k, 0, 0]`` is ``δ(k, (N-1)/2, (M-1)/2)``. Batch norm's
``C(b,k,i,j)`` has the batch as its first axis, and ``m = B·H·W`` values per channel.

The slides print some of this differently: the end of the valid region as ``I-1-(N-1)/2``, which loses the last row, and
as an inclusive ``I-(N-1)/2``, which has one row too many; the number of rows of δ as ``I-1-N+1`` instead of I-N+1; the
condition ``N < I``, although N ≤ I is enough; and the count m as both ``B·N·M`` and ``B·H·W``, and with an index that
runs to M-1.

Every function accepts anything that NumPy can convert to an array. It raises ``ValueError`` with the name of the
function and of the argument that does not fit, and ``TypeError`` for complex numbers.
"""

from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


class _Grid:
    """An array with the deck's indices: the last two axes are indexed from `first`, and entries outside are zero.

    The zeros are both the deck's "δ = 0 outside its range" and the zero padding of D9.
    """

    def __init__(self, values: Array, first: tuple[int, int] = (0, 0)) -> None:
        self.values = values
        self.rows = range(first[0], first[0] + values.shape[-2])
        self.columns = range(first[1], first[1] + values.shape[-1])

    @property
    def sides(self) -> tuple[int, int]:
        return len(self.rows), len(self.columns)

    def positions(self) -> Iterator[tuple[int, int]]:
        return product(self.rows, self.columns)

    def indices(self) -> Iterator[tuple[int, ...]]:
        return product(*map(range, self.values.shape[:-2]), self.rows, self.columns)

    def __getitem__(self, index: tuple[int, ...]) -> float:
        *channels, i, j = index
        if i not in self.rows or j not in self.columns:
            return 0.0
        return self.values[*channels, self.rows.index(i), self.columns.index(j)]

    def __setitem__(self, index: tuple[int, ...], value: float) -> None:
        *channels, i, j = index
        self.values[*channels, self.rows.index(i), self.columns.index(j)] = value

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        # This makes a grid array-like for the type checker, so that `a = _Grid(a)` can reuse the deck's letter.
        return self.values


def cross_correlation(img: ArrayLike, kernel: ArrayLike, *, zero_padding: bool = False) -> Array:
    """Slide a kernel along an image of one channel.

    D1: ``G(i,j) = Σₙ Σₘ img(i+n, j+m) · K(n,m)``.

    Shapes: `img` (I, J), `kernel` (N, M), result (I-N+1, J-M+1), or (I, J) with `zero_padding`.

    >>> cross_correlation([[1, 2, 3, 4]], [[1, 10, 100]])
    array([[321., 432.]])
    """
    img, kernel = _arrays("cross_correlation", img=(img, "I J"), kernel=(kernel, "N M"))
    img, K = _Grid(img), _centred(kernel)
    G = _outputs("cross_correlation", img, K, (), zero_padding)
    for i, j in G.positions():
        G[i, j] = sum(img[i + n, j + m] * K[n, m] for n, m in K.positions())
    return G.values


def convolution(img: ArrayLike, kernel: ArrayLike, *, zero_padding: bool = False) -> Array:
    """Slide a kernel, rotated by 180° about its centre, along an image of one channel.

    D2: ``G(i,j) = Σₙ Σₘ img(i-n, j-m) · K(n,m)``, which is ``Σₙ Σₘ img(i+n, j+m) · K(-n,-m)``.

    Shapes: `img` (I, J), `kernel` (N, M), result (I-N+1, J-M+1), or (I, J) with `zero_padding`.

    >>> convolution([[1, 2, 3, 4]], [[1, 10, 100]])
    array([[123., 234.]])
    """
    img, kernel = _arrays("convolution", img=(img, "I J"), kernel=(kernel, "N M"))
    img, K = _Grid(img), _centred(kernel)
    G = _outputs("convolution", img, K, (), zero_padding)
    for i, j in G.positions():
        G[i, j] = sum(img[i - n, j - m] * K[n, m] for n, m in K.positions())
    return G.values


def conv_layer(a: ArrayLike, kernel: ArrayLike, bias: ArrayLike | None = None, *, zero_padding: bool = False) -> Array:
    """Convolve the input channels with one filter for each output channel, and add its bias.

    D3: ``C(k,i,j) = Σ_c Σₙ Σₘ a(c, i+n, j+m) · K_k(c,-n,-m) + b_k``.

    Shapes: `a` (in, I, J), `kernel` (out, in, N, M), `bias` (out,) or None for zeros, result (out, I-N+1, J-M+1), or
    (out, I, J) with `zero_padding`.

    >>> conv_layer([[[1, 2, 3, 4]]], [[[[1, 10, 100]]]], [5000])
    array([[[5123., 5234.]]])
    """
    b = np.zeros(np.shape(kernel)[:1]) if bias is None else bias
    a, kernel, b = _arrays("conv_layer", a=(a, "in I J"), kernel=(kernel, "out in N M"), bias=(b, "out"))
    a, K = _Grid(a), _centred(kernel)
    filters, channels = kernel.shape[:2]
    C = _outputs("conv_layer", a, K, (filters,), zero_padding)
    for k, i, j in C.indices():
        C[k, i, j] = b[k] + sum(a[c, i + n, j + m] * K[k, c, -n, -m] for c in range(channels) for n, m in K.positions())
    return C.values


def conv_input_gradient(delta: ArrayLike, kernel: ArrayLike, *, zero_padding: bool = False) -> Array:
    """Slide the *unrotated* kernel along δ, padded with zeros: the gradient of D3 with respect to its input.

    D5: ``∂Loss/∂a(c,i',j') = Σ_k Σₙ Σₘ δ(k, i'+n, j'+m) · K_k(c,n,m)``, with ``δ = 0`` outside its range. The
    deck prints it without that condition, and in the last line with i and j instead of i' and j'.

    Shapes: `delta` (out, I-N+1, J-M+1), or (out, I, J) with `zero_padding`; `kernel` (out, in, N, M);
    result (in, I, J).

    The example is D6 with a kernel of powers of ten, so that each digit of the result is the δ that was multiplied by
    that tap. The gradient at the centre of the 5 × 5 image is ``δ(1,1)·K(-1,-1) + δ(1,2)·K(-1,0) + … + δ(3,3)·K(1,1)``,
    at its corner ``δ(1,1)·K(1,1)``. The deck prints these sums beside the padded example, whose sums have more terms,
    and with H instead of K.

    >>> delta = [[[1, 2, 3], [4, 5, 6], [7, 8, 9]]]  # δ(1,1) = 1, δ(1,2) = 2, …, δ(3,3) = 9
    >>> K = [[[[1, 1e1, 1e2], [1e3, 1e4, 1e5], [1e6, 1e7, 1e8]]]]  # K(-1,-1) = 1, K(-1,0) = 10, …, K(1,1) = 10⁸
    >>> gradient = conv_input_gradient(delta, K)
    >>> print(gradient.shape, gradient[0, 2, 2], gradient[0, 0, 0])
    (1, 5, 5) 987654321.0 100000000.0
    """
    kernel, delta = _arrays("conv_input_gradient", kernel=(kernel, "out in N M"), delta=(delta, "out I' J'"))
    filters, channels, N, M = kernel.shape
    p, q = _margin(N, M, zero_padding)
    delta, K = _Grid(delta, first=(p, q)), _centred(kernel)
    gradient = _Grid(np.zeros((channels, delta.sides[0] + 2 * p, delta.sides[1] + 2 * q)))
    for c, i, j in gradient.indices():
        gradient[c, i, j] = sum(
            delta[k, i + n, j + m] * K[k, c, n, m] for k in range(filters) for n, m in K.positions()
        )
    return gradient.values


def conv_kernel_gradient(
    a: ArrayLike, delta: ArrayLike, *, zero_padding: bool = False, kernel_sides: tuple[int, int] | None = None
) -> Array:
    """Slide δ along the image: the gradient of D3 with respect to its kernel.

    D7: ``∂Loss/∂K_k(c,n,m) = Σᵢ Σⱼ δ(k,i,j) · a(c, i-n, j-m)``, summed over the outputs. The deck prints ``δ(cin,i,j)``
    and ``C_k(cin,i,j)``, but both have the index of the output channel.

    Shapes: `a` (in, I, J); `delta` (out, I-N+1, J-M+1), or (out, I, J) with `zero_padding`; result (out, in, N, M). In
    the valid region N and M follow from these shapes. With `zero_padding` they do not: give ``kernel_sides=(N, M)``.

    The example is D8 with powers of ten for δ, so that each digit of the result is the entry of ``a`` that was
    multiplied by that δ: ``∂Loss/∂K(-1,-1) = δ(1,1)·a(2,2) + δ(1,2)·a(2,3) + … + δ(3,3)·a(4,4)``. The deck prints this
    sum beside the padded example, whose sums have more terms.

    >>> delta = [[[1, 1e1, 1e2], [1e3, 1e4, 1e5], [1e6, 1e7, 1e8]]]  # δ(1,1) = 1, δ(1,2) = 10, …, δ(3,3) = 10⁸
    >>> a = [[[0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 1, 2, 3], [0, 0, 4, 5, 6], [0, 0, 7, 8, 9]]]
    >>> gradient = conv_kernel_gradient(a, delta)
    >>> print(gradient.shape, gradient[0, 0, 0, 0])
    (1, 1, 3, 3) 987654321.0
    """
    a, delta = _arrays("conv_kernel_gradient", a=(a, "in I J"), delta=(delta, "out I' J'"))
    N, M = _kernel_sides(a, delta, zero_padding, kernel_sides)
    gradient = _centred(np.zeros((len(delta), len(a), N, M)))
    a, delta = _Grid(a), _Grid(delta, first=_margin(N, M, zero_padding))
    for k, c, n, m in gradient.indices():
        gradient[k, c, n, m] = sum(delta[k, i, j] * a[c, i - n, j - m] for i, j in delta.positions())
    return gradient.values


def conv_bias_gradient(delta: ArrayLike) -> Array:
    """Sum δ over the image: the gradient of D3 with respect to its bias, which the deck does not give.

    ``∂Loss/∂b_k = Σᵢ Σⱼ δ(k,i,j)``. Shapes: `delta` (out, I', J'), result (out,).

    >>> conv_bias_gradient([[[1, 2], [3, 4]]])
    array([10.])
    """
    (delta,) = _arrays("conv_bias_gradient", delta=(delta, "out I' J'"))
    return delta.sum(axis=(1, 2))


class BatchNormInputGradient(NamedTuple):
    """The three terms of D15, each with the shape of C, and their sum."""

    direct: Array
    through_mean: Array
    through_variance: Array

    @property
    def total(self) -> Array:
        return self.direct + self.through_mean + self.through_variance


def batch_norm(C: ArrayLike, gamma: ArrayLike, beta: ArrayLike, epsilon: float) -> Array:
    """Normalise each channel over batch and image, then scale and shift it.

    D13, which is D10 for each channel: ``μ_k = (1/m) Σ C``, ``σ_k² = (1/m) Σ (C-μ_k)²``, ``Ĉ = (C-μ_k)/√(σ_k²+ε)``,
    ``y = γ_k·Ĉ + β_k``, with Σ over (b,i,j). Later slides print y_k instead of γ_k.

    Shapes: `C` (B, K, H, W), `gamma` and `beta` (K,), result the same as `C`.

    >>> batch_norm([[[[4, 6]]]], gamma=[10], beta=[100], epsilon=3)[0, 0]  # μ = 5, σ² = 1, √(σ²+ε) = 2
    array([[ 95., 105.]])
    """
    C, gamma, beta = _arrays("batch_norm", C=(C, "B K H W"), gamma=(gamma, "K"), beta=(beta, "K"))
    deviation, variance = _moments("batch_norm", C, epsilon)
    return _along_channels(gamma) * deviation / np.sqrt(variance + epsilon) + _along_channels(beta)


def batch_norm_gamma_gradient(C: ArrayLike, delta: ArrayLike, epsilon: float) -> Array:
    """Sum δ times the normalised values, which γ multiplies.

    D14, "easy, skip this part": ``∂Loss/∂γ_k = Σ δ·Ĉ`` over (b,i,j). Channels do not depend on each other.

    Shapes: `C` and `delta` (B, K, H, W), result (K,).

    >>> batch_norm_gamma_gradient([[[[4, 6]]]], [[[[1, 7]]]], epsilon=3)  # Ĉ = -½, ½
    array([3.])
    """
    C, delta = _arrays("batch_norm_gamma_gradient", C=(C, "B K H W"), delta=(delta, "B K H W"))
    deviation, variance = _moments("batch_norm_gamma_gradient", C, epsilon)
    return (delta * deviation / np.sqrt(variance + epsilon)).sum(axis=(0, 2, 3))


def batch_norm_beta_gradient(delta: ArrayLike) -> Array:
    """Sum δ over batch and image.

    D14: ``∂Loss/∂β_k = Σ δ`` over (b,i,j). Shapes: `delta` (B, K, H, W), result (K,).

    >>> batch_norm_beta_gradient([[[[1, 7]]]])
    array([8.])
    """
    (delta,) = _arrays("batch_norm_beta_gradient", delta=(delta, "B K H W"))
    return delta.sum(axis=(0, 2, 3))


def batch_norm_input_gradient(
    C: ArrayLike, gamma: ArrayLike, delta: ArrayLike, epsilon: float
) -> BatchNormInputGradient:
    """Propagate δ back to C along three paths: directly, through μ and through σ².

    D16: ``∂Loss/∂C(b,i,j) = γ/√(σ²+ε)·δ(b,i,j) - γ/√(σ²+ε)·(1/m)·Σ δ - γ·(C-μ)·(σ²+ε)^(-3/2)·(1/m)·Σ δ·(C-μ)``, the
    three terms in the order of D15. The deck prints the third as ``+ (1/m)·2·(C-μ)·γ·0.5/(σ²+ε)^(-3/2)·Σ δ(C-μ)``. But
    ``d(σ²+ε)^(-1/2)/dσ² = -½·(σ²+ε)^(-3/2)`` is negative, and has its power in the numerator. The deck also prints
    ``dμ/dC = (1/m)·δ_{b'b}δ_{i'i}δ_{j'j}`` instead of 1/m, a sum over j' up to M instead of W-1, and ``C_{b,n,m}``
    instead of C(b,i,j). It leaves out the path through σ² and then μ without saying so. That path contributes nothing,
    because ``Σ (C-μ) = 0`` over the same values.

    Shapes: `C` and `delta` (B, K, H, W), `gamma` (K,), each term the same as `C`.

    >>> terms = batch_norm_input_gradient([[[[4, 6]]]], [8], [[[[1, 7]]]], epsilon=3)
    >>> print(*(term.ravel() for term in terms), terms.total.ravel())
    [ 4. 28.] [-16. -16.] [ 3. -3.] [-9.  9.]
    """
    C, gamma, delta = _arrays(
        "batch_norm_input_gradient", C=(C, "B K H W"), gamma=(gamma, "K"), delta=(delta, "B K H W")
    )
    gamma = _along_channels(gamma)
    deviation, variance = _moments("batch_norm_input_gradient", C, epsilon)
    # The first two terms use the same order of operations, so that for a single value (m = 1) they cancel exactly.
    direct = gamma / np.sqrt(variance + epsilon) * delta
    through_mean = -gamma / np.sqrt(variance + epsilon) * _mean(delta)
    through_variance = -gamma * deviation * (variance + epsilon) ** (-3 / 2) * _mean(delta * deviation)
    return BatchNormInputGradient(direct, np.broadcast_to(through_mean, C.shape).copy(), through_variance)


def gradient_step(parameter: ArrayLike, gradient: ArrayLike, learning_rate: float) -> Array:
    """Update a parameter by a step of gradient descent.

    D4 and D18: ``K ← K - lr·∂Loss/∂K``, and the same for γ and β. The deck prints a plus, but descent subtracts.

    Shapes: any, the same for `parameter`, `gradient` and result.

    >>> gradient_step([1, 2], [10, -10], learning_rate=0.5)
    array([-4.,  7.])
    """
    parameter, gradient = np.asarray(parameter, np.float64), np.asarray(gradient, np.float64)
    if parameter.shape != gradient.shape:
        shapes = f"`gradient` has shape {gradient.shape}, `parameter` has {parameter.shape}"
        raise ValueError(f"gradient_step: {shapes}; gradient.shape must be {parameter.shape}")
    return parameter - learning_rate * gradient


_AXES = {"in": "input channels", "out": "output channels", "B": "images", "K": "channels", "H": "rows", "W": "columns"}


def _arrays(function: str, **arguments: tuple[ArrayLike, str]) -> list[Array]:
    """Converts every argument to float64, and checks that axes with the same name have the same size."""
    arrays: list[Array] = []
    sizes: dict[str, tuple[str, int]] = {}
    for name, (value, names) in arguments.items():
        if np.iscomplexobj(value):
            raise TypeError(f"{function}: `{name}` is complex; it must be real")
        array, axes = np.asarray(value, np.float64), names.split()
        if array.ndim != len(axes) or array.size == 0:
            wanted = f"it must have {len(axes)} axes ({', '.join(axes)}), none empty"
            raise ValueError(f"{function}: `{name}` has shape {array.shape}; {wanted}")
        for number, (axis, size) in enumerate(zip(axes, array.shape, strict=True)):
            place = f"{name}.shape[{number}]"
            if axis in ("N", "M") and size % 2 == 0:
                raise ValueError(f"{function}: `{name}` has {axis} = {size}; {place} must be odd, to have a centre")
            other, wanted = sizes.setdefault(axis, (name, size))
            if size != wanted:
                sizes_found = f"`{name}` has {size} {_AXES[axis]}, `{other}` has {wanted}"
                raise ValueError(f"{function}: {sizes_found}; {place} must be {wanted}")
        arrays.append(array)
    return arrays


def _centred(kernel: Array) -> _Grid:
    N, M = kernel.shape[-2:]
    return _Grid(kernel, first=(-(N // 2), -(M // 2)))


def _margin(N: int, M: int, zero_padding: bool) -> tuple[int, int]:
    """The number of rows and of columns without an output at each edge, which are also the first output's indices."""
    return (0, 0) if zero_padding else (N // 2, M // 2)


def _outputs(function: str, image: _Grid, kernel: _Grid, channels: tuple[int, ...], zero_padding: bool) -> _Grid:
    (rows, columns), (N, M) = image.sides, kernel.sides
    p, q = _margin(N, M, zero_padding)
    if rows <= 2 * p or columns <= 2 * q:
        sizes = f"`kernel` is {N} × {M}, the image is {rows} × {columns}"
        raise ValueError(f"{function}: {sizes}; the kernel must fit on the image, or zero_padding be True")
    return _Grid(np.zeros((*channels, rows - 2 * p, columns - 2 * q)), first=(p, q))


def _kernel_sides(image: Array, delta: Array, zero_padding: bool, given: tuple[int, int] | None) -> tuple[int, int]:
    function, (rows, columns), outputs = "conv_kernel_gradient", image.shape[1:], delta.shape[1:]
    if given is None and zero_padding:
        reason = "`kernel_sides` is None with zero_padding=True, where every kernel has outputs of the image's size"
        raise ValueError(f"{function}: {reason}; kernel_sides must be (N, M)")
    N, M = given or (rows - outputs[0] + 1, columns - outputs[1] + 1)
    p, q = _margin(N, M, zero_padding)
    if N < 1 or M < 1 or N % 2 == 0 or M % 2 == 0 or outputs != (rows - 2 * p, columns - 2 * q):
        sizes = f"`delta` has {outputs[0]} × {outputs[1]} outputs, `a` is {rows} × {columns}, the kernel {N} × {M}"
        wanted = "N and M must be odd, delta.shape[1:] (I-N+1, J-M+1), or (I, J) with zero_padding"
        raise ValueError(f"{function}: {sizes}; {wanted}")
    return N, M


def _mean(values: Array) -> Array:
    """The mean over (b,i,j). The axes are kept, so that it broadcasts against C."""
    return values.mean(axis=(0, 2, 3), keepdims=True)


def _along_channels(values: Array) -> Array:
    return values[:, np.newaxis, np.newaxis]


def _moments(function: str, C: Array, epsilon: float) -> tuple[Array, Array]:
    """``C - μ`` and ``σ²`` of each channel."""
    if not epsilon > 0:
        raise ValueError(f"{function}: `epsilon` is {epsilon}; it must be positive")
    deviation = C - _mean(C)
    return deviation, _mean(deviation**2)
