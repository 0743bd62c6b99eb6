#include "maps.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <vector>

#include "job.h"

namespace jaxbn {

#if defined(__x86_64__)
extern const InstructionSet baseline, avx2, avx512;
#else
extern const InstructionSet baseline;
#endif

namespace {

const InstructionSet& best_instruction_set() {
  const char* name = std::getenv("JAXBN_INSTRUCTION_SET");
  [[maybe_unused]] auto allowed = [name](const InstructionSet& set) { return !name || !std::strcmp(name, set.name); };
#if defined(__x86_64__)
  if (allowed(avx512) && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw")) {
    return avx512;
  }
  if (allowed(avx2) && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return avx2;
#endif
  return baseline;
}

const InstructionSet& current() {
  static const InstructionSet& set = best_instruction_set();
  return set;
}

const Kernels& kernels(Dtype dtype) { return dtype == Dtype::float32 ? current().float32 : current().float64; }

// A correlation with the phases of its axes.
struct Plan {
  std::vector<Axis> axes[3];
  std::vector<long> packed_at;
  Correlation job{};
};

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

std::unique_ptr<Plan> plan_for(Map map, Dtype dtype, const Convolution& c) {
  auto plan = std::make_unique<Plan>();
  Correlation& job = plan->job;
  const long in = c.in_features / c.groups, out = c.out_features / c.groups;
  const bool adjoint = map == Map::input_gradient;
  for (int a = 0; a < 3; ++a) {
    plan->axes[a] = adjoint ? gradient_axis(c, a) : forward_axis(c, a);
    job.in[a] = adjoint ? c.out[a] : c.in[a];
    job.out[a] = adjoint ? c.in[a] : c.out[a];
    job.window[a] = c.window[a];
  }
  job.slices = 1;
  job.members = c.members, job.batch = c.batch, job.groups = c.groups;
  job.in_channels = adjoint ? out : in;
  job.out_channels = adjoint ? in : out;
  job.kernel_in = adjoint ? 1 : c.out_features;
  job.kernel_out = adjoint ? c.out_features : 1;
  job.kernel_group = out;
  const Kernels& set = kernels(dtype);
  job.depthwise = c.groups > 1 && 2 * job.out_channels < set.lanes;
  constexpr long MOST_TAPS = 30;
  job.in_place = map != Map::kernel_gradient && job.depthwise && in == 1 && out == 1 && c.groups % set.lanes == 0 &&
                 c.window[0] * c.window[1] * c.window[2] <= MOST_TAPS;
  join_axes(*plan);
  long phases = 1, taps = 0;
  for (int a = 0; a < 3; ++a) {
    job.axes[a] = plan->axes[a].data();
    job.phases[a] = plan->axes[a].size();
    phases *= job.phases[a];
  }
  // To pack the weights would cost more than it gains for few pixels. The vectors must end with the rows of the kernel.
  const long pixels = job.members * job.batch * job.axes[0][0].count * job.axes[1][0].count * job.axes[2][0].count;
  job.packed = adjoint || job.depthwise || job.out_channels % 16 != 0 || pixels > 256;
  // The taps of all phases are those of the window, so the size depends on the shapes alone.
  const long padded =
      16 * (job.depthwise ? (job.groups * job.out_channels + 15) / 16 : job.groups * ((job.out_channels + 15) / 16));
  for (long phase = 0; phase < phases; ++phase) {
    plan->packed_at.push_back(taps * job.in_channels * padded);
    taps += plan->axes[2][phase % job.phases[2]].taps * plan->axes[1][phase / job.phases[2] % job.phases[1]].taps *
            plan->axes[0][phase / job.phases[2] / job.phases[1]].taps;
  }
  job.packed_at = plan->packed_at.data();
  job.packed_size = taps * job.in_channels * (job.packed ? padded : job.groups * job.out_channels);

  const long products =
      std::max(1L, taps * job.in_channels * job.out_channels * job.groups);  // at one place of the grid
  constexpr long LEAST_PRODUCTS = 200'000, TASKS = 16;
  if (map == Map::kernel_gradient) {
    set_tiles(job, set, 128);
  } else {
    const long most = std::max(16L, 256 / phases), least = std::max(32L / phases, LEAST_PRODUCTS / products);
    set_tiles(job, set, std::min(most, std::max(pixels / TASKS, least)));
    const long tiles = job.members * job.image_blocks * job.tiles[0] * job.tiles[1] * job.tiles[2];
    const long panels = job.depthwise ? 1 : job.groups * set.panels(job);
    const long slices = pixels * products < 8 * LEAST_PRODUCTS ? 1 : TASKS / tiles;
    job.slices = std::max(1L, std::min(panels, slices));
  }
  return plan;
}

KernelGradient gradient_job(const Correlation& forward, Dtype dtype) {
  constexpr long LEAST_PIXELS = 1024, MOST_PARTS = 32, MOST_SUMS = 4 << 20, MOST_SLICE = 128 * 1024, LEAST_TASKS = 16;
  KernelGradient job{forward, 1};
  const long tiles = forward.image_blocks * forward.tiles[0] * forward.tiles[1] * forward.tiles[2];
  const long pixels = forward.batch * forward.axes[0][0].count * forward.axes[1][0].count * forward.axes[2][0].count;
  const long size = forward.window[0] * forward.window[1] * forward.window[2] * forward.groups * forward.in_channels *
                    forward.out_channels;
  job.parts = std::min({std::max(1L, pixels / LEAST_PIXELS), MOST_PARTS, std::max(1L, MOST_SUMS / size), tiles});
  if (!forward.depthwise) {
    const long panels = forward.groups * kernels(dtype).panels(forward);
    const bool small = pixels * size < 1'000'000;
    const long slices = std::max(size / MOST_SLICE, small ? 1 : LEAST_TASKS / (job.parts * forward.members));
    job.forward.slices = std::min(panels, std::max(1L, slices));
  }
  return job;
}

// Memory of a thread, kept for its next task. It grows to the largest view and panel.
void* scratch(size_t bytes) {
  struct Free {
    void operator()(void* pointer) const { std::free(pointer); }
  };
  thread_local std::unique_ptr<void, Free> memory;
  thread_local size_t size = 0;
  if (size < bytes) {
    size = (bytes + 4095) / 4096 * 4096;
    memory.reset();
    memory.reset(std::aligned_alloc(64, size));
  }
  return memory.get();
}

size_t bytes_of(Dtype dtype) { return dtype == Dtype::float32 ? 4 : 8; }

}  // namespace

const char* instruction_set() { return current().name; }

long buffer_size(Map map, Dtype dtype, const Convolution& convolution) {
  const auto plan = plan_for(map, dtype, convolution);
  if (map != Map::kernel_gradient) return plan->job.packed ? plan->job.members * plan->job.packed_size : 0;
  const KernelGradient job = gradient_job(plan->job, dtype);
  const long size = convolution.window[0] * convolution.window[1] * convolution.window[2] * convolution.in_features /
                    convolution.groups * convolution.out_features;
  return job.parts == 1 ? 0 : job.forward.members * job.parts * size;
}

void run(Map map, Dtype dtype, const Convolution& convolution, const void* left, const void* right, void* result,
         void* buffer, const ForEach& for_each) {
  const auto plan = plan_for(map, dtype, convolution);
  const Correlation& job = plan->job;
  const Kernels& set = kernels(dtype);
  const size_t bytes = bytes_of(dtype);
  const long tiles = job.image_blocks * job.tiles[0] * job.tiles[1] * job.tiles[2];
  if (map == Map::kernel_gradient) {
    const KernelGradient gradient = gradient_job(job, dtype);
    const size_t space = bytes * set.scratch(job, true);
    void* sums = gradient.parts == 1 ? result : buffer;
    for_each(job.members * gradient.parts * gradient.forward.slices,
             [&](long task) { set.kernel_gradient(gradient, left, right, sums, scratch(space), task); });
    if (gradient.parts == 1) return;
    constexpr long RANGE = 16 * 1024;
    const long size = job.window[0] * job.window[1] * job.window[2] * job.groups * job.in_channels * job.out_channels;
    const long ranges = (size + RANGE - 1) / RANGE;
    for_each(job.members * ranges, [&](long task) {
      const long member = task / ranges, begin = task % ranges * RANGE;
      set.add(static_cast<char*>(sums) + (member * gradient.parts * size + begin) * bytes, gradient.parts, size,
              std::min(RANGE, size - begin), static_cast<char*>(result) + (member * size + begin) * bytes);
    });
    return;
  }
  const long phases = job.phases[0] * job.phases[1] * job.phases[2];
  const long packs = job.members * phases * (job.depthwise ? 1 : job.groups * set.panels(job));
  const std::function<void(long)> pack = [&](long task) { set.pack(job, right, buffer, task); };
  if (!job.packed) {
    buffer = const_cast<void*>(right);
  } else if (job.members * job.packed_size < 64 * 1024) {
    for (long task = 0; task < packs; ++task) pack(task);
  } else {
    for_each(packs, pack);
  }
  const size_t space = bytes * set.scratch(job, false);
  for_each(job.members * tiles * job.slices,
           [&](long task) { set.correlate(job, left, buffer, result, scratch(space), task); });
}

}  // namespace jaxbn
