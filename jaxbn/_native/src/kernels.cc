// The three maps for one instruction set. CMake compiles this file once for each, with JAXBN_SET its name,
// JAXBN_VECTOR_BYTES the size of a vector and JAXBN_REGISTERS how many of them there are.
//
// Everything is in an anonymous namespace and nothing of the standard library is used, so that no function compiled for
// one processor can be called on another.
#include <string.h>

#include "job.h"

namespace {

using jaxbn::Axis;
using jaxbn::Correlation;

#include "block.h"
#include "view.h"
#include "dense.h"
#include "depthwise.h"
#include "in_place.h"

template <class T>
long panels(const Correlation& job) {
  return job.depthwise ? 1 : Panels<T>(job.out_channels).count;
}

// The entries that a task needs beside its operands: the view, and in a kernel gradient a panel of the cotangents.
template <class T>
long scratch(const Correlation& job, bool with_cotangents) {
  const long pixels = job.images * job.tile[0] * job.tile[1] * job.tile[2];
  const long width = job.depthwise ? Simd<T>::lanes : MOST_VECTORS * Simd<T>::lanes;
  return view_size<T>(job) + (with_cotangents ? pixels * width : 0);
}

template <class T>
void correlate(const Correlation& job, const void* in, const void* all_weights, void* out, void* scratch, long task) {
  const long slice = task % job.slices;
  const Box box = tile_of(job, task / job.slices);
  const View<T> view = view_of(job, box, static_cast<const T*>(in), static_cast<T*>(scratch));
  const T* weights = static_cast<const T*>(all_weights) + box.member * job.packed_size;
  T* images =
      static_cast<T*>(out) + (box.member * job.batch + box.image) * image_size(job.out, job.groups * job.out_channels);
  for (long phase = 0; phase < job.phases[0] * job.phases[1] * job.phases[2]; ++phase) {
    const Rows<T> rows(job, phase, box, view);
    if (rows.empty) continue;
    if (job.in_place) {
      correlate_in_place(job, rows, weights + job.packed_at[phase], images);
    } else if (job.depthwise) {
      correlate_depthwise(job, rows, weights + job.packed_at[phase], images);
    } else {
      correlate_dense(job, rows, weights + job.packed_at[phase], images, slice);
    }
  }
}

template <class T>
void kernel_gradient(const Correlation& job, const void* x, const void* dy, void* sums, void* scratch, long task) {
  const long slice = task % job.slices, part = task / job.slices % job.parts, member = task / job.slices / job.parts;
  const long tiles = job.image_blocks * job.tiles[0] * job.tiles[1] * job.tiles[2];
  const long size = Taps(job, 0).count() * job.groups * job.in_channels * job.out_channels;
  T* total = static_cast<T*>(sums) + (member * job.parts + part) * size;
  const long begin = part * tiles / job.parts, end = (part + 1) * tiles / job.parts;
  for (long tile = begin; tile < end; ++tile) {
    const Box box = tile_of(job, member * tiles + tile);
    T* space = static_cast<T*>(scratch);
    const View<T> view = view_of(job, box, static_cast<const T*>(x), space);
    space += view_size<T>(job);
    const Rows<T> rows(job, 0, box, view);
    const T* cotangents = static_cast<const T*>(dy) +
                          (member * job.batch + box.image) * image_size(job.out, job.groups * job.out_channels);
    if (job.in_place) {
      if (tile == begin) zero(total, size);
      add_gradient_in_place(job, rows, cotangents, total);
    } else if (job.depthwise) {
      add_depthwise_gradient(job, rows, cotangents, total, space, tile == begin);
    } else {
      add_dense_gradient(job, rows, cotangents, total, space, tile == begin, slice);
    }
  }
}

template <class T>
void add(const void* parts, long count, long stride, long size, void* total) {
  T* sum = static_cast<T*>(total);
  memcpy(sum, parts, size * sizeof(T));
  for (long part = 1; part < count; ++part) {
    const T* next = static_cast<const T*>(parts) + part * stride;
    for (long i = 0; i < size; ++i) sum[i] += next[i];
  }
}

template <class T>
void pack(const Correlation& job, const void* kernel, void* packed, long task) {
  const long panels_ = panels<T>(job), phases = job.phases[0] * job.phases[1] * job.phases[2];
  const long panel = task % panels_, group = task / panels_ % (job.depthwise ? 1 : job.groups);
  const long rest = task / panels_ / (job.depthwise ? 1 : job.groups), phase = rest % phases, member = rest / phases;
  const T* from = static_cast<const T*>(kernel) + member * job.window[0] * job.window[1] * job.window[2] * job.groups *
                                                      job.in_channels * job.out_channels;
  T* to = static_cast<T*>(packed) + member * job.packed_size + job.packed_at[phase];
  if (job.depthwise) {
    pack_depthwise(job, Taps(job, phase), from, to);
  } else {
    pack_dense(job, Taps(job, phase), from, to, group, panel);
  }
}

template <class T>
constexpr jaxbn::Kernels kernels_for() {
  return {Simd<T>::lanes, panels<T>, scratch<T>, pack<T>, correlate<T>, kernel_gradient<T>, add<T>};
}

}  // namespace

namespace jaxbn {
#define JAXBN_STRING_(name) #name
#define JAXBN_STRING(name) JAXBN_STRING_(name)
extern const InstructionSet JAXBN_SET;
const InstructionSet JAXBN_SET = {JAXBN_STRING(JAXBN_SET), kernels_for<float>(), kernels_for<double>()};
}  // namespace jaxbn
