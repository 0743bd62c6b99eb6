// From the numbers of a convolution to the description of its tasks.
#pragma once

#include <vector>

#include "job.h"
#include "maps.h"

namespace jaxbn {

// A map's job, with the arrays that it points to.
struct Plan {
  Correlation job{};
  std::vector<Axis> axes[3];
  std::vector<long> packed_at;

  Plan(Map map, const Convolution& convolution, const Kernels& kernels);
  Plan(const Plan&) = delete;
};

// The places of the grid that a correlation's outputs have in all images of a member; each phase has one output there.
inline long places_of(const Correlation& job) {
  return job.batch * job.axes[0][0].count * job.axes[1][0].count * job.axes[2][0].count;
}

inline long tiles_of(const Correlation& job) { return job.image_blocks * job.tiles[0] * job.tiles[1] * job.tiles[2]; }

inline long kernel_size(const Correlation& job) {
  return job.window[0] * job.window[1] * job.window[2] * job.groups * job.in_channels * job.out_channels;
}

}  // namespace jaxbn
