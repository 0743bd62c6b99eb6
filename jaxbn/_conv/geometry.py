"""Where a convolution's window stands: the shapes and paddings of the forward and of both adjoints.

Along one spatial axis, an output index ``p`` and a tap ``n`` of the kernel meet the input at

    i = p · stride + n · dilation − low

Everything here follows from that line. For a unit stride, a unit dilation and a kernel of odd side ``N`` it is the
deck's ``i = p + n`` in indices counted from the corner, with ``low = 0`` for the valid region (D1) and
``low = (N−1)/2`` for the zero-padded image (D9).
"""

from dataclasses import dataclass

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

    @property
    def output(self) -> Sizes:
        """The number of places along each axis where the dilated window fits the padded input."""
        room = (size + low + high for size, (low, high) in zip(self.input, self.padding, strict=True))
        return tuple(
            max(0, (width - extent) // stride + 1)
            for width, extent, stride in zip(room, self.extent, self.stride, strict=True)
        )

    @property
    def extent(self) -> Sizes:
        """The width of the dilated window: what its taps span, from the first to the last."""
        return tuple(dilation * (taps - 1) + 1 for taps, dilation in zip(self.window, self.dilation, strict=True))

    @property
    def spread(self) -> Sizes:
        """The width of the output with ``stride − 1`` gaps between its entries."""
        return tuple(stride * (size - 1) + 1 for size, stride in zip(self.output, self.stride, strict=True))

    @property
    def input_gradient_padding(self) -> Padding:
        """Padding of the spread ``dy`` under which the rotated kernel, slid along it, gives the input's shape (D6)."""
        return tuple(
            (extent - 1 - low, size + low - spread)
            for size, (low, _), extent, spread in zip(self.input, self.padding, self.extent, self.spread, strict=True)
        )

    @property
    def kernel_gradient_padding(self) -> Padding:
        """Padding of ``x`` under which the spread ``dy``, slid along it, gives the window's shape (D8).

        The upper one is negative where a stride leaves rows over that no window reaches: they are cut.
        """
        return tuple(
            (low, extent - 1 + spread - size - low)
            for size, (low, _), extent, spread in zip(self.input, self.padding, self.extent, self.spread, strict=True)
        )


def same_padding(size: int, extent: int, stride: int, *, lower: bool) -> tuple[int, int]:
    """Padding with which the output has ``⌈size / stride⌉`` entries; the odd one is above, or below if ``lower``."""
    total = max((-(-size // stride) - 1) * stride + extent - size, 0)
    return (total - total // 2, total // 2) if lower else (total // 2, total - total // 2)
