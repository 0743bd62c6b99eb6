"""The public arguments of a convolution, checked and gathered. What is wrong is said here, when traced."""

from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxbn._conv.algorithms import ALGORITHMS
from jaxbn._conv.arithmetic import Arithmetic, in_context
from jaxbn._conv.geometry import ConvGeometry, Padding, Sizes, same_padding
from jaxbn._conv.layout import CHANNELS_FIRST, CHANNELS_LAST, Layout
from jaxbn._sizes import is_known
from jaxbn._validation import as_integer, require_floating, require_vector

Operand = jax.Array | jax.ShapeDtypeStruct
"""An array, or the shape and dtype of one that is not there: a gradient's."""

PADDINGS = ("VALID", "SAME", "SAME_LOWER")


class Options(NamedTuple):
    """What the caller asked for, by the public names, and the name of the function that was asked."""

    function: str
    stride: Any
    padding: Any
    dilation: Any
    groups: Any
    flip_kernel: Any
    dimension_numbers: Any
    preferred_element_type: Any
    algorithm: Any = None
    output_padding: Any = 0


def conv_arguments(
    options: Options, x: Operand, kernel: Operand, bias: jax.Array | None
) -> tuple[Layout, ConvGeometry]:
    """Layout and geometry of ``conv(x, kernel, bias)``."""
    layout, window, stride, dilation, groups = _common(options, x, kernel)
    _, *input_, in_features = (x.shape[axis] for axis in layout.x)
    *_, channels_in, out_features = (kernel.shape[axis] for axis in layout.kernel)
    if in_features % groups:
        raise ValueError(
            f"{options.function}: `groups` is {groups}; it must divide the {in_features} input channels of `x`"
            f"{_as_read(options, x, kernel)}"
        )
    if channels_in * groups != in_features:
        raise ValueError(
            f"{options.function}: `kernel` has {channels_in} input channels, `x` has {in_features} with "
            f"groups={groups}; kernel.shape[{layout.kernel[-2] - kernel.ndim}] must be {in_features // groups}"
            f"{_as_read(options, x, kernel)}"
        )
    _require_bias(options.function, bias, out_features)
    padding = _explicit_padding(options, len(window))
    if isinstance(padding, str):
        padding = _padding_by_name(padding, input_, _extent(window, dilation), stride)
    if _some_below(0, (size + low + high for size, (low, high) in zip(input_, padding, strict=True))):
        raise ValueError(
            f"{options.function}: `padding` is {options.padding!r}, which cuts more than all of a spatial shape of "
            f"{tuple(input_)}; it must cut less"
        )
    ones = (1,) * len(window)
    return layout, ConvGeometry(
        tuple(input_), window, in_features, out_features, stride, padding, dilation, groups, ones
    )


def conv_transpose_arguments(
    options: Options, x: Operand, kernel: Operand, bias: jax.Array | None
) -> tuple[Layout, ConvGeometry]:
    """Layout of ``conv_transpose(x, kernel, bias)`` and geometry of the convolution that it transposes."""
    layout, window, stride, dilation, groups = _common(options, x, kernel)
    _, *input_, in_features = (x.shape[axis] for axis in layout.x)
    *_, channels_out, channels_in = (kernel.shape[axis] for axis in layout.kernel)
    if channels_in != in_features:
        raise ValueError(
            f"{options.function}: `kernel` has {channels_in} input channels, `x` has {in_features}; kernel.shape"
            f"[{layout.kernel[-1] - kernel.ndim}] must be {in_features}, as in the convolution that is transposed"
            f"{_as_read(options, x, kernel)}"
        )
    out_features = channels_out * groups
    _require_bias(options.function, bias, out_features)
    extent = _extent(window, dilation)
    extra = _output_padding(options, stride, dilation)
    padding = _explicit_padding(options, len(window))
    if isinstance(padding, str):
        # lax.conv_transpose's sizes.
        gap = (0 if padding != "VALID" else max(width - step, 0) for width, step in zip(extent, stride, strict=True))
        output = tuple(size * step + more for size, step, more in zip(input_, stride, gap, strict=True))
        padding = _padding_by_name(padding, output, extent, stride)
    else:
        # PyTorch's sizes. The extra rows lie past the last window, so the convolution's padding ends sooner by as much.
        output = tuple(
            (size - 1) * step + width - low - high + more
            for size, step, width, (low, high), more in zip(input_, stride, extent, padding, extra, strict=True)
        )
        padding = tuple((low, high - more) for (low, high), more in zip(padding, extra, strict=True))
        if _some_below(0, output) or _some_below(1, input_):
            raise ValueError(
                f"{options.function}: `x` has spatial shape {tuple(input_)}, which gives an output of {output} with "
                f"padding={options.padding!r}; `x` must be larger, or `padding` smaller"
            )
    ones = (1,) * len(window)
    return layout, ConvGeometry(output, window, out_features, in_features, stride, padding, dilation, groups, ones)


def arithmetic_of(options: Options, geometry: ConvGeometry, precision: lax.PrecisionLike) -> Arithmetic:
    """How to compute; raises ``ValueError`` where the algorithm that the caller forces is none or does not apply."""
    name = options.algorithm
    if name is not None:
        known = f"it must be None or one of {', '.join(map(repr, ALGORITHMS))}"
        if name not in ALGORITHMS:
            raise ValueError(f"{options.function}: `algorithm` is {name!r}; {known}")
        if not ALGORITHMS[name].applies(geometry):
            fitting = ", ".join(repr(other) for other, module in ALGORITHMS.items() if module.applies(geometry))
            raise ValueError(
                f"{options.function}: `algorithm` is {name!r}, which does not apply to this convolution; {fitting} do"
            )
    return Arithmetic(in_context(precision), options.preferred_element_type, name)


def _common(options: Options, x: Operand, kernel: Operand) -> tuple[Layout, Sizes, Sizes, Sizes, int]:
    """Layout, window, stride, dilation and groups: what a convolution and its transpose check alike."""
    function = options.function
    for argument, array in (("x", x), ("kernel", kernel)):
        require_floating(function, argument, array.dtype)
    if x.ndim == kernel.ndim - 1 and kernel.ndim in CHANNELS_LAST:
        raise ValueError(_axis_missing(options, x, kernel))
    if x.ndim not in CHANNELS_LAST:
        raise ValueError(f"{function}: `x` has rank {x.ndim}; it must be 3, 4 or 5: batch, 1 to 3 of space, channels")
    if kernel.ndim != x.ndim:
        raise ValueError(f"{function}: `kernel` has rank {kernel.ndim}, `x` has rank {x.ndim}; they must be the same")
    if kernel.dtype != x.dtype:
        raise TypeError(f"{function}: `kernel` has dtype {kernel.dtype}, `x` has {x.dtype}; they must be the same")
    if 0 in kernel.shape:
        raise ValueError(f"{function}: `kernel` has shape {kernel.shape}; every side must be at least 1")
    if options.preferred_element_type is not None:
        preferred = options.preferred_element_type
        require_floating(function, "preferred_element_type", preferred)
        if jnp.finfo(preferred).bits < jnp.finfo(x.dtype).bits:
            came = f"`preferred_element_type` is {jnp.dtype(preferred)}, `x` has {x.dtype}"
            raise TypeError(f"{function}: {came}; it must not be narrower")
    if not isinstance(options.flip_kernel, bool):
        raise TypeError(f"{function}: `flip_kernel` is {options.flip_kernel!r}; it must be True or False")
    layout = _layout(options, x, kernel)
    groups = as_integer(function, "groups", options.groups, least=1)
    *window, _, last = (kernel.shape[axis] for axis in layout.kernel)
    if last % groups:
        raise ValueError(
            f"{function}: `groups` is {groups}; it must divide the {last} channels of "
            f"kernel.shape[{layout.kernel[-1] - kernel.ndim}]{_as_read(options, x, kernel)}"
        )
    stride = _sizes(function, "stride", options.stride, len(window))
    dilation = _sizes(function, "dilation", options.dilation, len(window))
    return layout, tuple(window), stride, dilation, groups


def _layout(options: Options, x: Operand, kernel: Operand) -> Layout:
    numbers = CHANNELS_LAST[x.ndim] if options.dimension_numbers is None else options.dimension_numbers
    try:
        return Layout.of(lax.conv_dimension_numbers(x.shape, kernel.shape, numbers))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{options.function}: `dimension_numbers` is {numbers!r}; it must be as jax.lax.conv_dimension_numbers "
            f"reads it, which says: {error}"
        ) from None


def _axis_missing(options: Options, x: Operand, kernel: Operand) -> str:
    """The error where ``x`` has one axis less than ``kernel``, with the expressions that add one."""
    layout = _layout(options, jax.ShapeDtypeStruct((1,) * kernel.ndim, x.dtype), kernel)
    batch, *_, channels = (
        {0: "x[None]", x.ndim: "x[..., None]"}.get(axis, f"jnp.expand_dims(x, {axis})") for axis in layout.x
    )
    one_channel = kernel.shape[layout.kernel[-2]] == 1
    return (
        f"{options.function}: `x` has rank {x.ndim}, `kernel` has rank {kernel.ndim}; they must be the same. "
        f"x.shape is {x.shape}: a single image needs a batch axis, {batch}"
        + (f"; images without channels need an axis for the one, {channels}" if one_channel else "")
    )


def _as_read(options: Options, x: Operand, kernel: Operand) -> str:
    """The shapes as they came and the layout that they were taken for, to end an error about channels with."""
    shapes = f". x.shape is {x.shape} and kernel.shape is {kernel.shape}, read as"
    if options.dimension_numbers is not None:
        return f"{shapes} dimension_numbers={options.dimension_numbers!r}"
    of_x, of_kernel, _ = CHANNELS_LAST[x.ndim]
    return f"{shapes} {of_x} and {of_kernel}; PyTorch's layout is dimension_numbers={CHANNELS_FIRST[x.ndim]}"


def _some_below(least: int, sizes: Iterable[int]) -> bool:
    """Whether a size is known to be too small."""
    return any(is_known(size) and size < least for size in sizes)


def _extent(window: Sizes, dilation: Sizes) -> Sizes:
    return tuple(step * (taps - 1) + 1 for taps, step in zip(window, dilation, strict=True))


def _require_bias(function: str, bias: jax.Array | None, features: int) -> None:
    if bias is not None:
        require_vector(function, "bias", bias, features, "one entry for each output channel")


def _sizes(function: str, argument: str, value: Any, spatial: int, *, least: int = 1) -> Sizes:
    """An int for all spatial axes, or one for each."""
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,) * spatial
    if len(values) != spatial:
        raise ValueError(
            f"{function}: `{argument}` is {value!r}; it must be an int, or {spatial}: one for each spatial axis"
        )
    return tuple(as_integer(function, argument, entry, least=least) for entry in values)


def _explicit_padding(options: Options, spatial: int) -> Padding | str:
    """The padding as pairs, or as the name of a rule."""
    padding = options.padding
    wanted = (
        f"it must be an int, one of {', '.join(map(repr, PADDINGS))}, or a tuple with an int or a pair (low, high) for "
        f"each spatial axis, such as {((1, 1),) * spatial}"
    )
    if isinstance(padding, str):
        if padding.upper() not in PADDINGS:
            raise ValueError(f"{options.function}: `padding` is {padding!r}; {wanted}")
        return padding.upper()
    if not isinstance(padding, (tuple, list, int, np.integer)):
        raise TypeError(f"{options.function}: `padding` is {padding!r}; {wanted}")
    side = partial(as_integer, options.function, "padding")
    each = padding if isinstance(padding, (tuple, list)) else (padding,) * spatial
    pairs = [entry if isinstance(entry, (tuple, list)) else (entry, entry) for entry in each]
    if len(pairs) != spatial or any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"{options.function}: `padding` is {padding!r}; {wanted}")
    return tuple((side(low), side(high)) for low, high in pairs)


def _padding_by_name(padding: str, input_: Any, extent: Sizes, stride: Sizes) -> Padding:
    if padding == "VALID":
        return ((0, 0),) * len(extent)
    lower = padding == "SAME_LOWER"
    return tuple(same_padding(*axis, lower=lower) for axis in zip(input_, extent, stride, strict=True))


def _output_padding(options: Options, stride: Sizes, dilation: Sizes) -> Sizes:
    """PyTorch's extra size at the high end, which tells apart the inputs that a stride brings to one size."""
    extra = _sizes(options.function, "output_padding", options.output_padding, len(stride), least=0)
    if any(extra) and isinstance(options.padding, str):
        raise ValueError(
            f"{options.function}: `output_padding` is {options.output_padding!r} with padding={options.padding!r}; "
            f"it goes with explicit padding alone, a name settles the output's size"
        )
    if any(more >= max(step, gap) for more, step, gap in zip(extra, stride, dilation, strict=True)):
        raise ValueError(
            f"{options.function}: `output_padding` is {options.output_padding!r}; it must be smaller than the stride "
            f"{stride} or the dilation {dilation}"
        )
    return extra
