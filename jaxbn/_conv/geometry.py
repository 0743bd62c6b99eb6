"""Index arithmetic of a convolution: the shapes and the paddings of the forward map and of its two gradients.

Along one spatial axis, output ``p`` and tap ``n`` of the kernel meet input ``i`` where

    i · input_dilation = p · stride + n · dilation − low

The input dilation is 1 except in `jaxbn.conv_general_dilated`, which can insert zeros between the entries of its input.
Everything in this file follows from that line. With unit stride, unit dilation and a kernel of odd side ``N`` it is the
deck's ``i = p + n``, with indices counted from the corner: ``low = 0`` for the valid region (D1) and
``low = (N−1)/2`` for the zero-padded image (D9).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from jax.core import max_dim

# A size may be a symbol of `jax.export`.
Sizes = tuple[int, ...]
Padding = tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True)
class ConvGeometry:
    """The sizes and the options of a convolution in channels-last layout, except its batch size.

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
        """The number of positions along each axis at which the dilated window fits into the padded input."""
        return tuple(
            max_dim((size - extent) // stride + 1, 0)
            for size, extent, stride in zip(self.padded_input, self.extent, self.stride, strict=True)
        )

    @property
    def extent(self) -> Sizes:
        return dilated_extent(self.window, self.dilation)

    @property
    def dilated_input(self) -> Sizes:
        """The input's sizes with ``input_dilation − 1`` zeros between neighbouring entries."""
        return _dilated(self.input, self.input_dilation)

    @property
    def dilated_output(self) -> Sizes:
        """The output's sizes with ``stride − 1`` zeros between neighbouring entries."""
        return _dilated(self.output, self.stride)

    @property
    def padded_input(self) -> Sizes:
        """The sizes of the dilated input with its padding."""
        return tuple(size + low + high for size, (low, high) in zip(self.dilated_input, self.padding, strict=True))

    @property
    def windows_are_disjoint(self) -> bool:
        """Whether no input is in two windows."""
        return all(extent <= stride for extent, stride in zip(self.extent, self.stride, strict=True))

    @property
    def adjoint(self) -> "ConvGeometry":
        """The input gradient as a convolution of ``dy`` with the rotated kernel, its channel axes exchanged (D6).

        Stride and input dilation are exchanged. With this upper padding the result has the input's shape.
        """
        padding = tuple(
            (extent - 1 - low, dilated_input + low - dilated_output)
            for dilated_input, low, extent, dilated_output in self._axes()
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
        """The padding of ``x`` in the kernel gradient, which slides the dilated ``dy`` along ``x`` (D8).

        With it the result has the window's shape. The upper padding is negative if the stride leaves rows at the end
        that no window reaches: it crops them.
        """
        return tuple(
            (low, extent - 1 + dilated_output - dilated_input - low)
            for dilated_input, low, extent, dilated_output in self._axes()
        )

    def _axes(self) -> Iterator[tuple[int, int, int, int]]:
        """For each axis: the dilated input, the padding below, the extent of the window, the dilated output."""
        lows = (low for low, _ in self.padding)
        return zip(self.dilated_input, lows, self.extent, self.dilated_output, strict=True)


def dilated_extent(window: Sizes, dilation: Sizes) -> Sizes:
    """The extent of a dilated window: the number of inputs from its first tap to its last."""
    return tuple(step * (taps - 1) + 1 for taps, step in zip(window, dilation, strict=True))


def _dilated(sizes: Sizes, steps: Sizes) -> Sizes:
    """The sizes with ``step − 1`` zeros between neighbouring entries; an empty axis stays empty."""
    return tuple(max_dim(step * (size - 1) + 1, 0) for size, step in zip(sizes, steps, strict=True))


def padding_by_name(name: str, input_: Sizes, extent: Sizes, stride: Sizes) -> Padding:
    """The padding that a name stands for.

    ``"VALID"`` is no padding. With ``"SAME"`` and ``"SAME_LOWER"`` the output has ``⌈input / stride⌉`` entries along
    each axis; an odd entry is above with ``"SAME"``, below with ``"SAME_LOWER"``. With ``"CAUSAL"`` all entries are
    below, so that a window ends at the position of its output. The names of other borders are as wide as ``"SAME"``.
    """
    if name == "VALID":
        return ((0, 0),) * len(extent)
    if name == "CAUSAL":
        return tuple((width - 1, 0) for width in extent)
    totals = [
        max_dim((-(-size // step) - 1) * step + width - size, 0)
        for size, width, step in zip(input_, extent, stride, strict=True)
    ]
    pairs = tuple((total // 2, total - total // 2) for total in totals)
    return tuple((high, low) for low, high in pairs) if name == "SAME_LOWER" else pairs
