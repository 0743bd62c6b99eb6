"""One mistake each in the text of a native kernel; the random convolutions must find every one."""

from typing import NamedTuple


class NativeMutant(NamedTuple):
    """A change of one place in a file of ``jaxbn/_native/src``."""

    name: str
    file: str
    old: str
    new: str


MUTANTS = [
    NativeMutant(
        "forward: padding one off", "plan.cc", "0, 1, -c.low[a], c.stride[a]", "0, 1, 1 - c.low[a], c.stride[a]"
    ),
    NativeMutant(
        "forward: dilation is the stride",
        "plan.cc",
        "c.window[a], c.dilation[a], 0, 1",
        "c.window[a], c.stride[a], 0, 1",
    ),
    NativeMutant("dx: taps in ascending order", "plan.cc", "last, -stride / common", "0, -stride / common"),
    NativeMutant("dx: the tap before the last", "plan.cc", "++taps, last = n;", "++taps, last = last + 0 * n;"),
    NativeMutant("dx: without the padding", "plan.cc", "if ((r + c.low[a] - n * dilation)", "if ((r - n * dilation)"),
    NativeMutant(
        "dx: a phase one output short", "plan.cc", "(c.in[a] - r + stride - 1) / stride", "(c.in[a] - r) / stride"
    ),
    NativeMutant(
        "dx: kernel not transposed",
        "plan.cc",
        "job.kernel_in = adjoint ? 1 :",
        "job.kernel_in = adjoint ? c.out_features :",
    ),
    NativeMutant(
        "groups: the distance of the input's channels", "plan.cc", "job.kernel_group = out;", "job.kernel_group = in;"
    ),
    NativeMutant("axes with a stride are joined", "plan.cc", "axis.in_step == 1 && axis.out_step", "axis.out_step"),
    NativeMutant(
        "dK: the last part is not added", "maps.cc", "* bytes, job.parts, size,", "* bytes, job.parts - 1, size,"
    ),
    NativeMutant("a smaller view than the taps reach", "plan.cc", "+ last - first + 1;", "+ last - first;"),
    NativeMutant(
        "a run's offset without what is done",
        "dense.h",
        "{run_offset(run) + done, length}",
        "{run_offset(run), length}",
    ),
    NativeMutant(
        "chunks do not accumulate", "dense.h", "chunk.next(); accumulate = true)", "chunk.next(); accumulate = false)"
    ),
    NativeMutant(
        "a group reads the first group's input",
        "dense.h",
        "rows.in_row(n, d, h) + group * job.in_channels;",
        "rows.in_row(n, d, h);",
    ),
    NativeMutant(
        "dK: every tile is the first", "kernels.cc", "total, space, tile == begin, slice", "total, space, true, slice"
    ),
    NativeMutant(
        "the last pixel of a block is not stored",
        "block.h",
        "for (int p = 0; p < PIXELS; ++p) memcpy(out + p * out_pixel, whole",
        "for (int p = 0; p < PIXELS - 1; ++p) memcpy(out + p * out_pixel, whole",
    ),
    NativeMutant(
        "an address two pixels off",
        "block.h",
        "base[p / 3][i + p % 3 * in_pixel]",
        "base[p / 3][i + (p + 1) % 3 * in_pixel]",
    ),
    NativeMutant(
        "a row outside the image is not zero",
        "view.h",
        "zero(to + c * plane, outside ? row : left * pitch);",
        "zero(to + c * plane, outside ? 0 : left * pitch);",
    ),
    NativeMutant(
        "the right edge is not zero",
        "view.h",
        "if (!outside) zero(to + c * plane + row",
        "if (false) zero(to + c * plane + row",
    ),
    NativeMutant("the next image of a tile", "view.h", "in + image * view.image + d", "in + d"),
    NativeMutant(
        "a tap of the wrong row", "view.h", "tap / width % height * tap_step[1]", "tap / width / height * tap_step[1]"
    ),
    NativeMutant("depthwise: the wrong input channel", "view.h", "/ out * in;\n", "/ out;\n"),
    NativeMutant(
        "depthwise: terms in another order",
        "depthwise.h",
        "rows.tap_offset(term / job.in_channels) + term % job.in_channels",
        "rows.tap_offset(term % job.in_channels) + term / job.in_channels",
    ),
    NativeMutant(
        "depthwise: the first vector's planes",
        "depthwise.h",
        "const T* from = rows.in_row(n, d, h) + planes;",
        "const T* from = rows.in_row(n, d, h);",
    ),
    NativeMutant(
        "depthwise: dK of the first terms",
        "depthwise.h",
        "offset_of(job, rows, term + t) + planes",
        "offset_of(job, rows, t) + planes",
    ),
    NativeMutant(
        "depthwise: dK without the sum so far",
        "depthwise.h",
        "first ? sums[t] : sums[t] + load(total + t * pitch)",
        "sums[t]",
    ),
    NativeMutant("in place: taps before the left edge", "in_place.h", "start < 0 ? parts_of(-start, step) : 0", "0"),
    NativeMutant(
        "in place: the weight of the row's first tap",
        "in_place.h",
        "* width.taps + k) * job.groups",
        "* width.taps) * job.groups",
    ),
    NativeMutant(
        "in place: dK of the first vector of channels",
        "in_place.h",
        "dy + stretch.out * channels + k,",
        "dy + stretch.out * channels,",
    ),
    NativeMutant("in place: dK adds to what was there", "kernels.cc", "if (tile == begin) zero(total, size);", ""),
    NativeMutant("planes: every input channel is the first", "view.h", "places += 1)", "places += 0)"),
]
