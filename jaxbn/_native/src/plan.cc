#include "plan.h"

#include <algorithm>
#include <numeric>

namespace jaxbn {
namespace {

// The forward map has one phase: output p meets input p * stride + n * dilation - low at tap n.
std::vector<Axis> forward_axis(const Convolution& c, int a) {
  return {{c.out[a], 0, 1, -c.low[a], c.stride[a], c.window[a], c.dilation[a], 0, 1}};
}

// Input i = r + stride * j meets output (i + low - n * dilation) / stride at the taps n for which that is whole. The
// taps are taken in reverse, so that the outputs are met in ascending order.
std::vector<Axis> gradient_axis(const Convolution& c, int a) {
  const long stride = c.stride[a], dilation = c.dilation[a], common = std::gcd(stride, dilation);
  std::vector<Axis> phases;
  for (long r = 0; r < std::min<long>(stride, c.in[a]); ++r) {
    long taps = 0, last = 0;
    for (long n = 0; n < c.window[a]; ++n) {
      if ((r + c.low[a] - n * dilation) % stride == 0) ++taps, last = n;
    }
    const long start = (r + c.low[a] - last * dilation) / stride;
    phases.push_back({(c.in[a] - r + stride - 1) / stride, r, stride, taps ? start : 0, 1, taps, dilation / common,
                      last, -stride / common});
  }
  return phases;
}

// Join the axes, and the images of a batch, that one tap with unit stride reads as they stand: to one long row.
void join_axes(Plan& plan) {
  Correlation& job = plan.job;
  auto plain = [&](int a) {
    const Axis& axis = plan.axes[a][0];
    return plan.axes[a].size() == 1 && axis.taps == 1 && axis.in_step == 1 && axis.out_step == 1 &&
           axis.in_start == 0 && job.in[a] == job.out[a];
  };
  if (!plain(2)) return;
  for (int a : {1, 0}) {
    if (!plain(a)) return;
    job.in[2] = job.out[2] = plan.axes[2][0].count *= job.in[a];
    job.in[a] = job.out[a] = plan.axes[a][0].count = 1;
  }
  job.in[2] = job.out[2] = plan.axes[2][0].count *= job.batch;
  job.batch = 1;
}

void set_view(Correlation& job) {
  for (int a = 0; a < 3; ++a) {
    const Axis* axes = job.axes[a];
    long first = 0, last = 0;
    bool any = false;
    for (long phase = 0; phase < job.phases[a]; ++phase) {
      if (!axes[phase].taps) continue;
      const long end = axes[phase].in_start + axes[phase].tap_step * (axes[phase].taps - 1);
      first = any ? std::min(first, axes[phase].in_start) : axes[phase].in_start;
      last = any ? std::max(last, end) : end;
      any = true;
    }
    job.in_origin[a] = first;
    job.view[a] = axes[0].in_step * (job.tile[a] - 1) + last - first + 1;
  }
}

// Tiles of about so many pixels, whole rows if they are short, with a view that fits into the second-level cache.
void set_tiles(Correlation& job, const Kernels& kernels, long pixels) {
  constexpr long MOST_VIEW = 128 * 1024;
  long wanted = std::max(1L, pixels);
  auto part = [&wanted](long size) {
    const long count = (size + wanted - 1) / wanted, part = (size + count - 1) / count;
    wanted = std::max(1L, wanted / part);
    return part;
  };
  for (int a : {2, 1, 0}) job.tile[a] = part(job.axes[a][0].count);
  job.images = part(job.batch);
  for (set_view(job); kernels.scratch(job, false) > MOST_VIEW; set_view(job)) {
    long* largest = &job.images;
    for (long& size : job.tile) largest = size > *largest ? &size : largest;
    if (*largest == 1) break;
    *largest = (*largest + 1) / 2;
  }
  for (int a = 0; a < 3; ++a) job.tiles[a] = (job.axes[a][0].count + job.tile[a] - 1) / job.tile[a];
  job.image_blocks = (job.batch + job.images - 1) / job.images;
}

// Sizes, channels, and the phases of the axes.
void describe(Plan& plan, Map map, const Convolution& c) {
  Correlation& job = plan.job;
  const bool adjoint = map == Map::input_gradient;
  for (int a = 0; a < 3; ++a) {
    plan.axes[a] = adjoint ? gradient_axis(c, a) : forward_axis(c, a);
    job.in[a] = adjoint ? c.out[a] : c.in[a];
    job.out[a] = adjoint ? c.in[a] : c.out[a];
    job.window[a] = c.window[a];
  }
  const long in = c.in_features / c.groups, out = c.out_features / c.groups;
  job.members = c.members, job.batch = c.batch, job.groups = c.groups;
  job.in_channels = adjoint ? out : in;
  job.out_channels = adjoint ? in : out;
  job.kernel_in = adjoint ? 1 : c.out_features;
  job.kernel_out = adjoint ? c.out_features : 1;
  job.kernel_group = out;
  join_axes(plan);
  for (int a = 0; a < 3; ++a) {
    job.axes[a] = plan.axes[a].data();
    job.phases[a] = plan.axes[a].size();
  }
}

// Whether vectors run over the channels of one group or of several, and where the weights of each phase are packed.
void set_layout(Plan& plan, Map map, const Kernels& kernels) {
  constexpr long MOST_TAPS_IN_PLACE = 30, FEW_PLACES = 256, LANES = 16;  // no vector has more lanes
  Correlation& job = plan.job;
  const long window = job.window[0] * job.window[1] * job.window[2], channels = job.groups * job.out_channels;
  job.depthwise = job.groups > 1 && 2 * job.out_channels <= kernels.lanes;
  job.in_place = job.depthwise && job.in_channels == 1 && job.out_channels == 1 && job.groups % kernels.lanes == 0 &&
                 window <= MOST_TAPS_IN_PLACE;
  // To pack the weights costs more than it gains for few outputs. Vectors of the kernel itself must end with its rows.
  job.packed = map == Map::input_gradient || job.depthwise || job.out_channels % LANES != 0 ||
               job.members * places_of(job) > FEW_PLACES;
  auto padded = [](long count) { return (count + LANES - 1) / LANES * LANES; };
  const long width = !job.packed ? channels : job.depthwise ? padded(channels) : job.groups * padded(job.out_channels);
  long taps = 0;
  for (long phase = 0; phase < job.phases[0] * job.phases[1] * job.phases[2]; ++phase) {
    plan.packed_at.push_back(taps * job.in_channels * width);
    taps += plan.axes[2][phase % job.phases[2]].taps * plan.axes[1][phase / job.phases[2] % job.phases[1]].taps *
            plan.axes[0][phase / job.phases[2] / job.phases[1]].taps;
  }
  job.packed_at = plan.packed_at.data();
  job.packed_size = taps * job.in_channels * width;
}

constexpr long TASKS = 16;  // at least so many, if there is work for them

// Cut the outputs into tiles, and if they are few the channels into slices.
void set_tasks(Correlation& job, const Kernels& kernels) {
  constexpr long LEAST_PRODUCTS = 200'000, MOST_OUTPUTS = 256, LEAST_OUTPUTS = 32;  // of a tile
  const long phases = job.phases[0] * job.phases[1] * job.phases[2], places = job.members * places_of(job);
  const long products = std::max(1L, kernel_size(job));  // at one place, in all phases together
  const long most = std::max(16L, MOST_OUTPUTS / phases);
  const long least = std::max(LEAST_OUTPUTS / phases, LEAST_PRODUCTS / products);
  set_tiles(job, kernels, std::min(most, std::max(places / TASKS, least)));
  const long panels = job.depthwise ? 1 : job.groups * kernels.panels(job);
  const long slices = places * products < 8 * LEAST_PRODUCTS ? 1 : TASKS / (job.members * tiles_of(job));
  job.slices = std::max(1L, std::min(panels, slices));
}

// Deal the tiles to parts, each with sums of its own, and cut the kernel's panels into slices that stay in a cache.
void set_gradient_tasks(Correlation& job, const Kernels& kernels) {
  constexpr long PLACES_OF_TILE = 128, PLACES_OF_PART = 1024, MOST_PARTS = 32, MOST_SUMS = 4 << 20, SLICE = 128 * 1024;
  set_tiles(job, kernels, PLACES_OF_TILE);
  const long places = places_of(job), size = kernel_size(job);
  job.parts = std::min({places / PLACES_OF_PART, MOST_PARTS, MOST_SUMS / (job.members * size), tiles_of(job)});
  job.parts = std::max(1L, job.parts);
  if (job.depthwise) return;
  const bool small = places * size < 1'000'000;
  const long slices = std::max(size / SLICE, small ? 1 : TASKS / (job.parts * job.members));
  job.slices = std::max(1L, std::min(job.groups * kernels.panels(job), slices));
}

}  // namespace

Plan::Plan(Map map, const Convolution& convolution, const Kernels& kernels) {
  job.slices = job.parts = 1;
  describe(*this, map, convolution);
  set_layout(*this, map, kernels);
  if (map == Map::kernel_gradient) {
    set_gradient_tasks(job, kernels);
  } else {
    set_tasks(job, kernels);
  }
}

}  // namespace jaxbn
