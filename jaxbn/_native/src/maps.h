// The three maps on the host's side: from the numbers of a convolution to tasks, which threads share.
#pragma once

#include <cstdint>
#include <functional>

namespace jaxbn {

// A convolution of a family of images with as many kernels, in channels-last layout with three spatial axes. Python
// passes these numbers in this order.
struct Convolution {
  int64_t members, batch, in[3], in_features, window[3], out_features, out[3];
  int64_t stride[3], low[3], dilation[3], groups;
};
constexpr int CONVOLUTION_NUMBERS = sizeof(Convolution) / sizeof(int64_t);

enum class Map { convolve, input_gradient, kernel_gradient };
enum class Dtype { float32, float64 };

// Calls `task(i)` for each i in [0, count), on any thread and in any order, and returns when all have returned.
using ForEach = std::function<void(long count, const std::function<void(long)>& task)>;

// The entries of the buffer that a map needs beside its operands and its result.
long buffer_size(Map map, Dtype dtype, const Convolution& convolution);

void run(Map map, Dtype dtype, const Convolution& convolution, const void* left, const void* right, void* result,
         void* buffer, const ForEach& for_each);

const char* instruction_set();

}  // namespace jaxbn
