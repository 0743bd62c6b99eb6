// The descriptions of a map's work that the kernels of every instruction set take: plain numbers and pointers.
//
// This header is compiled once for each instruction set. It has no functions, so that a linker cannot pick one that was
// compiled for another processor.
#pragma once

namespace jaxbn {

// One spatial axis of a correlation, or of one phase of it. Output `out_start + out_step * j` is the sum over the taps
// `t` of the products with input `in_start + in_step * j + tap_step * t`, of which those outside the image are zero.
struct Axis {
  long count;  // j is in [0, count)
  long out_start, out_step;
  long in_start, in_step;
  long taps, tap_step;
  long first_tap, kernel_step;  // tap t is the kernel's tap `first_tap + kernel_step * t`
};

// out(j, k) = sum over t and c of in(j, t, c) * kernel(t, c, k), in channels-last layout, for each member of a family,
// each image and each group. A forward map has one phase along each axis; an input gradient has as many as its stride.
struct Correlation {
  long members, batch, groups;
  long in_channels, out_channels;            // of one group
  long in[3], out[3], window[3];             // sizes of an image along depth, height and width
  long kernel_in, kernel_out, kernel_group;  // distances in the kernel of neighbouring channels and groups
  bool depthwise;                            // vectors run over the channels of all groups, since one group has too few
  const Axis* axes[3];                       // the phases of each axis
  long phases[3];
  bool in_place;          // if depthwise: the view is the image itself, and taps beyond its edges are left out
  bool packed;            // the weights are packed in panels; else they are read where they are in the kernel
  const long* packed_at;  // for each phase, its first entry among the packed weights of a member
  long packed_size;       // entries of the packed weights of a member

  // A task computes a tile of an image, or of a few small images: all phases of the j in a box. If there are few tiles,
  // it computes a slice of the panels of output channels.
  long slices;
  long images, tile[3];         // images and j in a tile, at most
  long tiles[3], image_blocks;  // tiles along each axis, and blocks of images
  long in_origin[3], view[3];   // the view of a tile at j: from `in_origin + in_step * j`, of these sizes at most

  // The kernel gradient, dkernel(t, c, k) = sum over the batch and j of in(j, t, c) * dy(j, k), is a contraction over
  // the pixels of a correlation. The tiles are dealt to parts, each of which has sums of its own; they are added in
  // order. A task computes one part of the tiles, and one slice of the panels.
  long parts;
};

// What an instruction set offers for one dtype.
struct Kernels {
  long lanes;  // channels in a vector
  long (*panels)(const Correlation&);
  long (*scratch)(const Correlation&, bool with_cotangents);
  void (*pack)(const Correlation&, const void* kernel, void* packed, long task);
  void (*correlate)(const Correlation&, const void* in, const void* packed, void* out, void* scratch, long task);
  void (*kernel_gradient)(const Correlation&, const void* x, const void* dy, void* sums, void* scratch, long task);
  void (*add)(const void* parts, long count, long stride, long size, void* total);
};

struct InstructionSet {
  const char* name;
  Kernels float32, float64;
};

}  // namespace jaxbn
