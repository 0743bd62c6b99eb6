"""The options of a convolution: as the caller gives them, and resolved for given operands.

Every public function builds one `ConvOptions` by keyword and resolves it once. Errors in the arguments are raised
there, while the program is traced.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike

from jaxbn._conv.algorithms.table import ALGORITHMS
from jaxbn._conv.borders import MODES, Border
from jaxbn._conv.geometry import ConvGeometry, Padding, Sizes, dilated_extent, padding_by_name
from jaxbn._conv.layout import Layout, Operand, as_read, read_layout
from jaxbn._conv.spec import Arithmetic, ConvSpec, precision_in_context
from jaxbn._sizes import is_known
from jaxbn._validation import as_integer, require_bool, require_floating, require_vector

Steps = int | tuple[int, ...]
"""One step for all spatial axes, or a tuple with one step for each axis."""

PaddingOption = str | int | tuple[int | tuple[int, int], ...]

DimensionNumbers = lax.ConvDimensionNumbers | tuple[str, str, str] | None

PADDINGS = ("VALID", "SAME", "SAME_LOWER")

BORDERS = {"CAUSAL": "zeros", "REFLECT": "reflect", "REPLICATE": "replicate", "CIRCULAR": "circular"}
"""Names of a padding that imply a ``padding_mode``, for the functions that have that option."""


class ConvConfig(NamedTuple):
    """The static argument of a rule: the caller's layout, and the convolution in channels-last layout."""

    layout: Layout
    spec: ConvSpec  # for the image with its borders
    borders: tuple[Border, ...] = ()  # empty if all are zeros


class _Common(NamedTuple):
    layout: Layout
    window: Sizes
    stride: Sizes
    dilation: Sizes
    groups: int


@dataclass(frozen=True, kw_only=True)
class ConvOptions:
    """The options by their public names, and the name of the public function, for the error messages."""

    function: str
    stride: Steps
    padding: PaddingOption
    dilation: Steps
    groups: int
    flip_kernel: bool
    dimension_numbers: DimensionNumbers
    precision: lax.PrecisionLike
    preferred_element_type: DTypeLike | None
    algorithm: str | None
    output_padding: Steps = 0
    padding_mode: str | tuple[str, ...] | None = None  # None if the function does not have this option

    def resolve(self, x: Operand, kernel: Operand, bias: jax.Array | None = None) -> ConvConfig:
        """Check the arguments of a convolution of ``x`` with ``kernel`` and return the configuration of its rule."""
        layout, window, stride, dilation, groups = self._resolve_common(x, kernel)
        _, *input_, in_features = (x.shape[axis] for axis in layout.x)
        *_, channels_in, out_features = (kernel.shape[axis] for axis in layout.kernel)
        if in_features % groups:
            raise ValueError(
                f"{self.function}: `groups` is {groups}; it must divide the {in_features} input channels of `x`"
                f"{as_read(x, kernel, self.dimension_numbers)}"
            )
        if channels_in * groups != in_features:
            raise ValueError(
                f"{self.function}: `kernel` has {channels_in} input channels, `x` has {in_features} with "
                f"groups={groups}; kernel.shape[{layout.kernel[-2] - kernel.ndim}] must be {in_features // groups}"
                f"{as_read(x, kernel, self.dimension_numbers)}"
            )
        self._require_bias(bias, out_features)
        padding = self._read_padding(len(window))
        if isinstance(padding, str):
            padding = padding_by_name(padding, tuple(input_), dilated_extent(window, dilation), stride)
        borders = self._borders(tuple(input_), padding)
        if borders:
            input_ = [size + border.low + border.high for size, border in zip(input_, borders, strict=True)]
            pairs = zip(padding, borders, strict=True)
            padding = tuple((low - border.low, high - border.high) for (low, high), border in pairs)
        if _some_below(0, (size + low + high for size, (low, high) in zip(input_, padding, strict=True))):
            raise ValueError(
                f"{self.function}: `padding` is {self.padding!r}, which crops more than the whole spatial shape "
                f"{tuple(input_)}; it must crop less"
            )
        geometry = ConvGeometry(
            input=tuple(input_),
            window=window,
            in_features=in_features,
            out_features=out_features,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            input_dilation=(1,) * len(window),
        )
        return ConvConfig(layout, self._spec(geometry), borders)

    def resolve_transposed(self, x: Operand, kernel: Operand, bias: jax.Array | None) -> ConvConfig:
        """Check the arguments of a transposed convolution and return the configuration of its rule.

        The spec is that of the convolution that is transposed, whose input is this function's output.
        """
        layout, window, stride, dilation, groups = self._resolve_common(x, kernel)
        _, *input_, in_features = (x.shape[axis] for axis in layout.x)
        *_, channels_out, channels_in = (kernel.shape[axis] for axis in layout.kernel)
        if channels_in != in_features:
            raise ValueError(
                f"{self.function}: `kernel` has {channels_in} input channels, `x` has {in_features}; kernel.shape"
                f"[{layout.kernel[-1] - kernel.ndim}] must be {in_features}, as in the convolution that is transposed"
                f"{as_read(x, kernel, self.dimension_numbers)}"
            )
        out_features = channels_out * groups
        self._require_bias(bias, out_features)
        output, padding = self._transposed_sizes(tuple(input_), window, stride, dilation)
        geometry = ConvGeometry(
            input=output,
            window=window,
            in_features=out_features,
            out_features=in_features,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            input_dilation=(1,) * len(window),
        )
        return ConvConfig(layout, self._spec(geometry))

    def _resolve_common(self, x: Operand, kernel: Operand) -> _Common:
        """Check and read the arguments that a convolution and a transposed convolution have in common."""
        function = self.function
        for argument, array in (("x", x), ("kernel", kernel)):
            require_floating(function, argument, array.dtype)
        require_bool(function, "flip_kernel", self.flip_kernel)
        layout = read_layout(function, x, kernel, self.dimension_numbers, flip_kernel=self.flip_kernel)
        if kernel.dtype != x.dtype:
            raise TypeError(f"{function}: `kernel` has dtype {kernel.dtype}, `x` has {x.dtype}; they must be the same")
        if 0 in kernel.shape:
            raise ValueError(f"{function}: `kernel` has shape {kernel.shape}; every side must be at least 1")
        preferred = self.preferred_element_type
        if preferred is not None:
            require_floating(function, "preferred_element_type", preferred)
            if jnp.finfo(preferred).bits < jnp.finfo(x.dtype).bits:
                came = f"`preferred_element_type` is {jnp.dtype(preferred)}, `x` has {x.dtype}"
                raise TypeError(f"{function}: {came}; it must not be narrower")
        groups = as_integer(function, "groups", self.groups, least=1)
        *window, _, last = (kernel.shape[axis] for axis in layout.kernel)
        if last % groups:
            raise ValueError(
                f"{function}: `groups` is {groups}; it must divide the {last} channels of "
                f"kernel.shape[{layout.kernel[-1] - kernel.ndim}]{as_read(x, kernel, self.dimension_numbers)}"
            )
        stride = self._read_steps("stride", self.stride, len(window))
        dilation = self._read_steps("dilation", self.dilation, len(window))
        return _Common(layout, tuple(window), stride, dilation, groups)

    def _require_bias(self, bias: jax.Array | None, features: int) -> None:
        if bias is not None:
            require_vector(self.function, "bias", bias, features, "one entry for each output channel")

    def _spec(self, geometry: ConvGeometry) -> ConvSpec:
        """The spec; raises ``ValueError`` if the caller's algorithm does not exist or does not apply."""
        name = self.algorithm
        if name is not None and name not in ALGORITHMS:
            known = ", ".join(map(repr, ALGORITHMS))
            raise ValueError(f"{self.function}: `algorithm` is {name!r}; it must be None or one of {known}")
        if name is not None and not ALGORITHMS[name].applies(geometry):
            fitting = ", ".join(repr(other) for other, module in ALGORITHMS.items() if module.applies(geometry))
            raise ValueError(
                f"{self.function}: `algorithm` is {name!r}, which does not apply to this convolution; {fitting} do"
            )
        return ConvSpec(geometry, Arithmetic(precision_in_context(self.precision), self.preferred_element_type), name)

    def _read_steps(self, argument: str, value: Steps, spatial: int, *, least: int = 1) -> Sizes:
        """Read an int for all spatial axes, or a tuple with one int for each axis."""
        values = tuple(value) if isinstance(value, (tuple, list)) else (value,) * spatial
        if len(values) != spatial:
            raise ValueError(
                f"{self.function}: `{argument}` is {value!r}; it must be an int, or a tuple of {spatial} ints, one for "
                "each spatial axis"
            )
        return tuple(as_integer(self.function, argument, entry, least=least) for entry in values)

    def _borders(self, input_: Sizes, padding: Padding) -> tuple[Border, ...]:
        """The borders, one for each axis; empty if all are zeros."""
        modes = self._read_padding_mode(len(padding))
        if set(modes) == {"zeros"}:
            return ()
        borders = []
        for mode, size, (low, high) in zip(modes, input_, padding, strict=True):
            if mode != "zeros" and _some_below(0, (low, high)):
                raise ValueError(
                    f"{self.function}: `padding` is {self.padding!r} with `padding_mode` {mode!r}; it must not be "
                    "negative"
                )
            most = _widest_border(mode, size)
            if is_known(low, high) and max(low, high) > most:
                raise ValueError(
                    f"{self.function}: `padding` is {self.padding!r}, which needs a border of {max(low, high)}; with "
                    f"`padding_mode` {mode!r} an axis of {size} can have {most} at most"
                )
            borders.append(Border(mode, 0, 0) if mode == "zeros" else Border(mode, low, high))
        return tuple(borders)

    def _read_padding_mode(self, spatial: int) -> tuple[str, ...]:
        """Read one mode for each spatial axis."""
        mode = self.padding_mode or "zeros"
        modes = tuple(mode) if isinstance(mode, (tuple, list)) else (mode,) * spatial
        if len(modes) != spatial or any(each not in MODES for each in modes):
            raise ValueError(
                f"{self.function}: `padding_mode` is {mode!r}; it must be one of {', '.join(map(repr, MODES))}, or a "
                "tuple of one for each spatial axis"
            )
        by_name = BORDERS.get(self.padding.upper()) if isinstance(self.padding, str) else None
        if by_name is None:
            return modes
        if set(modes) != {"zeros"}:
            raise ValueError(
                f"{self.function}: `padding_mode` is {mode!r} with padding={self.padding!r}, which says what the "
                "border is; one of them must be left out"
            )
        return (by_name,) * spatial

    def _read_padding(self, spatial: int) -> Padding | str:
        """Read the padding as pairs, or as one of the names in capitals."""
        padding = self.padding
        names = PADDINGS if self.padding_mode is None else (*PADDINGS, *BORDERS)
        wanted = (
            f"it must be an int, one of {', '.join(map(repr, names))}, or a tuple with an int or a pair (low, high) "
            f"for each spatial axis, such as {((1, 1),) * spatial}"
        )
        if isinstance(padding, str):
            if padding.upper() not in names:
                raise ValueError(f"{self.function}: `padding` is {padding!r}; {wanted}")
            return padding.upper()
        if not isinstance(padding, (tuple, list, int, np.integer)):
            raise TypeError(f"{self.function}: `padding` is {padding!r}; {wanted}")
        side = partial(as_integer, self.function, "padding")
        entries = padding if isinstance(padding, (tuple, list)) else (padding,) * spatial
        pairs = [entry if isinstance(entry, (tuple, list)) else (entry, entry) for entry in entries]
        if len(pairs) != spatial or any(len(pair) != 2 for pair in pairs):
            raise ValueError(f"{self.function}: `padding` is {padding!r}; {wanted}")
        return tuple((side(low), side(high)) for low, high in pairs)

    def _transposed_sizes(self, input_: Sizes, window: Sizes, stride: Sizes, dilation: Sizes) -> tuple[Sizes, Padding]:
        """The output's sizes of a transposed convolution, and the padding of the convolution that it transposes."""
        extent = dilated_extent(window, dilation)
        extra = self._read_output_padding(stride, dilation)
        padding = self._read_padding(len(window))
        if isinstance(padding, str):  # The sizes are those of `jax.lax.conv_transpose`.
            gaps = (0 if padding != "VALID" else max(size - step, 0) for size, step in zip(extent, stride, strict=True))
            output = tuple(size * step + gap for size, step, gap in zip(input_, stride, gaps, strict=True))
            return output, padding_by_name(padding, output, extent, stride)
        # The sizes are PyTorch's.
        output = tuple(
            (size - 1) * step + width - low - high + more
            for size, step, width, (low, high), more in zip(input_, stride, extent, padding, extra, strict=True)
        )
        if _some_below(0, output) or _some_below(1, input_):
            raise ValueError(
                f"{self.function}: `x` has spatial shape {input_}, which gives an output of {output} with "
                f"padding={self.padding!r}; `x` must be larger, or `padding` smaller"
            )
        # The rows that `output_padding` adds are past the last window, so the convolution has less padding there.
        return output, tuple((low, high - more) for (low, high), more in zip(padding, extra, strict=True))

    def _read_output_padding(self, stride: Sizes, dilation: Sizes) -> Sizes:
        extra = self._read_steps("output_padding", self.output_padding, len(stride), least=0)
        if any(extra) and isinstance(self.padding, str):
            raise ValueError(
                f"{self.function}: `output_padding` is {self.output_padding!r} with padding={self.padding!r}; "
                f"it needs explicit padding, because a name fixes the output's size"
            )
        if any(more >= max(step, gap) for more, step, gap in zip(extra, stride, dilation, strict=True)):
            raise ValueError(
                f"{self.function}: `output_padding` is {self.output_padding!r}; it must be smaller than the stride "
                f"{stride} or the dilation {dilation}"
            )
        return extra


def _widest_border(mode: str, size: int) -> float:
    """The width of the widest border that an axis can have: infinite if the size of the axis is not known."""
    if mode == "zeros" or not is_known(size):
        return math.inf
    return {"reflect": max(size - 1, 0), "circular": size, "replicate": math.inf if size else 0}[mode]


def _some_below(least: int, sizes: Iterable[int]) -> bool:
    """Whether a size is known to be too small."""
    return any(is_known(size) and size < least for size in sizes)
