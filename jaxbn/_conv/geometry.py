"""Where a convolution's window stands: the shapes and paddings of the forward and of both adjoints.

Along one spatial axis, an output index ``p`` and a tap ``n`` of the kernel meet the input at

    i · input_dilation = p · stride + n · dilation − low

where the input dilation is 1 but for `jaxbn.conv_general_dilated`, which can spread its input. Everything here follows
from that line. For a unit stride, a unit dilation and a kernel of odd side ``N`` it is the deck's ``i = p + n`` in
indices counted from the corner, with ``low = 0`` for the valid region (D1) and ``low = (N−1)/2`` for the zero-padded
image (D9).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from jax.core import max_dim

# Sizes may be symbols, as `jax.export` has them.
Sizes = tuple[int, ...]
Padding = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class ConvGeometry:
    """All that is static in a convolution with channels last, but the batch and the dtypes.

    ``x`` is ``(batch, *input, in_features)``, ``kernel`` is ``(*window, in_features // groups, out_features)``, ``y``
    is ``(batch, *output, out_features)``.
    """

    input: Sizes
    window: Sizes
    in_features: int
    out_features: int
    stride: Sizes
    padding: Padding
    dilation: Sizes
    groups: int
    input_dilation: Sizes

    @property
    def output(self) -> Sizes:
        """The number of places along each axis where the dilated window fits the padded input."""
        room = (size + low + high for size, (low, high) in zip(self.spread_input, self.padding, strict=True))
        return tuple(
            max_dim((width - extent) // stride + 1, 0)
            for width, extent, stride in zip(room, self.extent, self.stride, strict=True)
        )

    @property
    def extent(self) -> Sizes:
        """The width of the dilated window: what its taps span, from the first to the last."""
        return tuple(dilation * (taps - 1) + 1 for taps, dilation in zip(self.window, self.dilation, strict=True))

    @property
    def spread_input(self) -> Sizes:
        """The width of the input with ``input_dilation − 1`` gaps between its entries."""
        return _spread(self.input, self.input_dilation)

    @property
    def spread_output(self) -> Sizes:
        """The width of the output with ``stride − 1`` gaps between its entries."""
        return _spread(self.output, self.stride)

    @property
    def adjoint(self) -> "ConvGeometry":
        """The convolution of ``dy`` with the rotated kernel, its channels exchanged, that is the input gradient (D6).

        Stride and input dilation change places. The upper padding reaches just as far as gives the input's shape.
        """
        padding = tuple(
            (extent - 1 - low, size + low - spread)
            for size, (low, _), extent, spread in self._rows(self.spread_input, self.extent, self.spread_output)
        )
        return replace(
            self,
            input=self.output,
            in_features=self.out_features,
            out_features=self.in_features,
            stride=self.input_dilation,
            padding=padding,
            input_dilation=self.stride,
        )

    @property
    def kernel_gradient_padding(self) -> Padding:
        """Padding of ``x`` under which the spread ``dy``, slid along it, gives the window's shape (D8).

        The upper one is negative where a stride leaves rows over that no window reaches: they are cut.
        """
        return tuple(
            (low, extent - 1 + spread - size - low)
            for size, (low, _), extent, spread in self._rows(self.spread_input, self.extent, self.spread_output)
        )

    def _rows(self, size: Sizes, extent: Sizes, spread: Sizes) -> Iterator[tuple[int, tuple[int, int], int, int]]:
        return zip(size, self.padding, extent, spread, strict=True)


def _spread(sizes: Sizes, steps: Sizes) -> Sizes:
    """Widths with ``step − 1`` gaps between the entries; nothing stays nothing."""
    return tuple(max_dim(step * (size - 1) + 1, 0) for size, step in zip(sizes, steps, strict=True))


def same_padding(size: int, extent: int, stride: int, *, lower: bool) -> tuple[int, int]:
    """Padding with which the output has ``⌈size / stride⌉`` entries; the odd one is above, or below if ``lower``."""
    total = max_dim((-(-size // stride) - 1) * stride + extent - size, 0)
    return (total - total // 2, total // 2) if lower else (total // 2, total - total // 2)
