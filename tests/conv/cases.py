"""The table of convolutions: every option, shapes whose sides all differ."""

from collections.abc import Iterator
from itertools import cycle, product
from typing import Any

from tests.support.cases import LAYOUTS, Case, Shape, conv_case

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


def with_borders() -> Iterator[Case]:
    modes = ("reflect", "replicate", "circular")
    turns = zip(
        cycle(CHANNELS),
        cycle([(1, modes[:1]), (2, modes[1:]), (3, modes), (2, ("zeros", "reflect"))]),
        cycle([None, -1, None]),
        [((2, 1), (0, 3), (1, 1)), ((0, 0), (2, 0), (1, 0)), ((3, 3), (1, 2), (0, 2)), ((1, 4), (4, 4), (2, 1))] * 3,
    )
    for channels, (spatial, given), layout, padding in turns:
        window = (((3, 2, 2)[:spatial]), (2, 1, 1)[:spatial], 1)
        layout = None if layout is None else LAYOUTS[spatial][layout]
        modes = (modes[-1], *modes[:-1])
        mode = given if "zeros" in given else tuple(modes[:spatial])
        yield conv_case("conv", spatial, window, padding[:spatial], channels, layout, padding_mode=mode)


CONV_CASES = [
    *conv_cases("conv"),
    *with_borders(),
    conv_case("conv", 2, ((3, 2), 1, 2), 2, (3, 5, 1), None, padding_mode="circular", flip_kernel=True),
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


# A few that together have every option, for what is too costly to try on all.
COVERING_CASES = [
    *(
        conv_case("conv", 2, ((3, 2), (1, 2), (2, 1)), padding, channels, layout, flip_kernel=flip)
        for padding, channels, layout, flip in [
            ("SAME", (3, 5, 1), None, False),
            ("VALID", (4, 6, 2), LAYOUTS[2][1], True),
            (((1, -1), (0, 2)), (3, 6, 3), None, False),
        ]
    ),
    conv_case("conv", 2, ((3, 2), 1, 1), 2, (3, 5, 1), None, padding_mode=("reflect", "circular")),
    conv_case("conv", 2, ((1, 1), 1, 1), "VALID", (3, 5, 1), None, bias=False),
    conv_case("conv", 2, ((2, 2), 2, 1), "VALID", (3, 5, 1), None),
    conv_case("conv", 1, ((3,), 1, 1), 1, (4, 4, 4), None),
    conv_case("conv", 3, ((2, 3, 2), 2, 1), "SAME_LOWER", (3, 5, 1), None),
    conv_case("conv_transpose", 2, ((3, 2), 2, 1), "SAME", (3, 5, 1), None),
    conv_case("conv_transpose", 2, ((3, 2), 2, 3), 1, (4, 6, 2), LAYOUTS[2][1], output_padding=2, flip_kernel=True),
    conv_case("conv_transpose", 3, ((2, 3, 2), 2, 1), "VALID", (3, 6, 3), None, bias=False),
]
