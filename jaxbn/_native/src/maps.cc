#include "maps.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#include "plan.h"

namespace jaxbn {

#if defined(__x86_64__)
extern const InstructionSet baseline, avx2, avx512, avx512_half;
#else
extern const InstructionSet neon;
#endif

namespace {

// The widest that the processor has; the environment can ask for a narrower one.
const InstructionSet& best_instruction_set() {
#if defined(__x86_64__)
  const char* name = std::getenv("JAXBN_INSTRUCTION_SET");
  auto allowed = [name](const InstructionSet& set) { return !name || !std::strcmp(name, set.name); };
  if (allowed(avx512) && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw")) {
    return avx512;
  }
  if (allowed(avx2) && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return avx2;
  return baseline;
#else
  return neon;
#endif
}

const InstructionSet& current() {
  static const InstructionSet& set = best_instruction_set();
  return set;
}

// The set with vectors of half the size, where there is one.
const InstructionSet& half() {
#if defined(__x86_64__)
  if (&current() == &avx512) return avx512_half;
#endif
  return current();
}

// Groups that fill at most half of a vector, but more than a quarter, run on vectors of half the size. Narrower groups
// share a vector.
const Kernels& kernels_for(Map map, Dtype dtype, const Convolution& convolution) {
  auto of_dtype = [dtype](const InstructionSet& set) -> const Kernels& {
    return dtype == Dtype::float32 ? set.float32 : set.float64;
  };
  const long features = map == Map::input_gradient ? convolution.in_features : convolution.out_features;
  const long channels = features / convolution.groups, lanes = of_dtype(current()).lanes;
  const bool fill_half = convolution.groups > 1 && 2 * channels <= lanes && 4 * channels > lanes;
  return of_dtype(fill_half ? half() : current());
}

size_t bytes_of(Dtype dtype) { return dtype == Dtype::float32 ? 4 : 8; }

// Memory of a thread, kept for its next task. It grows to the largest view and panel. Throws if there is none left.
void* scratch(size_t bytes) {
  struct Free {
    void operator()(void* pointer) const { std::free(pointer); }
  };
  thread_local std::unique_ptr<void, Free> memory;
  thread_local size_t size = 0;
  if (size < bytes) {
    const size_t pages = (bytes + 4095) / 4096 * 4096;
    size = 0;
    memory.reset();
    memory.reset(std::aligned_alloc(64, pages));
    if (!memory) throw std::bad_alloc();
    size = pages;
  }
  return memory.get();
}

// y or dx: pack the weights, then compute the tiles.
void correlate(const Correlation& job, const Kernels& set, size_t bytes, const void* in, const void* kernel, void* out,
               void* packed, const ForEach& for_each) {
  constexpr long FEW_WEIGHTS = 64 * 1024;
  if (job.packed) {
    const long phases = job.phases[0] * job.phases[1] * job.phases[2];
    const long count = job.members * phases * (job.depthwise ? 1 : job.groups * set.panels(job));
    const std::function<void(long)> pack = [&](long task) { set.pack(job, kernel, packed, task); };
    if (job.members * job.packed_size < FEW_WEIGHTS) {
      for (long task = 0; task < count; ++task) pack(task);
    } else {
      for_each(count, pack);
    }
  }
  const void* weights = job.packed ? packed : kernel;
  const size_t space = bytes * set.scratch(job, false);
  for_each(job.members * tiles_of(job) * job.slices,
           [&](long task) { set.correlate(job, in, weights, out, scratch(space), task); });
}

// dK: the sums of each part of the pixels, then their sum in order.
void contract(const Correlation& job, const Kernels& set, size_t bytes, const void* x, const void* dy, void* dkernel,
              void* parts, const ForEach& for_each) {
  constexpr long RANGE = 16 * 1024;
  const size_t space = bytes * set.scratch(job, true);
  void* sums = job.parts == 1 ? dkernel : parts;
  for_each(job.members * job.parts * job.slices,
           [&](long task) { set.kernel_gradient(job, x, dy, sums, scratch(space), task); });
  if (job.parts == 1) return;
  const long size = kernel_size(job), ranges = (size + RANGE - 1) / RANGE;
  for_each(job.members * ranges, [&](long task) {
    const long member = task / ranges, begin = task % ranges * RANGE;
    set.add(static_cast<char*>(parts) + (member * job.parts * size + begin) * bytes, job.parts, size,
            std::min(RANGE, size - begin), static_cast<char*>(dkernel) + (member * size + begin) * bytes);
  });
}

}  // namespace

const char* instruction_set() { return current().name; }

long buffer_size(Map map, Dtype dtype, const Convolution& convolution) {
  const Plan plan(map, convolution, kernels_for(map, dtype, convolution));
  const Correlation& job = plan.job;
  if (map == Map::kernel_gradient) return job.parts == 1 ? 0 : job.members * job.parts * kernel_size(job);
  return job.packed ? job.members * job.packed_size : 0;
}

void run(Map map, Dtype dtype, const Convolution& convolution, const void* left, const void* right, void* result,
         void* buffer, const ForEach& for_each) {
  const Kernels& kernels = kernels_for(map, dtype, convolution);
  const Plan plan(map, convolution, kernels);
  auto compute = map == Map::kernel_gradient ? contract : correlate;
  compute(plan.job, kernels, bytes_of(dtype), left, right, result, buffer, for_each);
}

}  // namespace jaxbn
