// Random convolutions by the native kernels, beside literal sums. Built with sanitizers or with a mistake planted in
// the kernels by `python -m tests.campaigns.native`, which also prints what this program prints.
//
//     harness <count> <seed> <threads>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "maps.h"

using namespace jaxbn;

namespace {

struct Problem {
  Convolution c;
  long x, kernel, y;  // numbers of entries
};

Problem draw(std::mt19937& random) {
  auto pick = [&](std::vector<long> choices) { return choices[random() % choices.size()]; };
  for (;;) {
    Problem p{};
    Convolution& c = p.c;
    int dimensions = pick({1, 2, 2, 3});
    c.members = pick({1, 1, 1, 3});
    c.batch = pick({1, 2, 3, 5, 5, 24});
    c.groups = pick({1, 1, 1, 2, 3, 5, 16, 16});
    c.in_features = c.groups * pick({1, 1, 2, 3, 4, 5, 8, 17});
    c.out_features = c.groups * pick({1, 1, 2, 3, 4, 6, 8, 9, 20, 70});
    if (random() % 10 == 0) c.in_features = c.out_features = c.groups = pick({16, 32, 40});
    const bool pointwise = random() % 6 == 0, deep = random() % 25 == 0;
    if (deep) dimensions = c.members = c.batch = c.groups = 1, c.in_features = 1100, c.out_features = 70;
    bool fits = true;
    p.x = c.members * c.batch * c.in_features, p.y = c.members * c.batch * c.out_features;
    p.kernel = c.members * c.in_features / c.groups * c.out_features;
    for (int a = 0; a < 3; ++a) {
      const bool exists = a >= 3 - dimensions;
      const long most[] = {0, 90, 14, 7};
      c.in[a] = exists ? 1 + random() % (deep ? 12 : pointwise ? 6 : most[dimensions]) : 1;
      c.window[a] = exists && !pointwise ? pick({1, 2, 3, 3, 5}) : 1;
      c.stride[a] = exists ? pick({1, 1, 2, 3, 6}) : 1;
      c.dilation[a] = exists ? pick({1, 1, 2, 3}) : 1;
      c.low[a] = exists ? pick({-2, -1, 0, 0, 0, 1, 2, 4}) : 0;
      const long high = exists ? pick({-2, -1, 0, 0, 0, 1, 2, 4}) : 0;
      const long room = c.in[a] + c.low[a] + high - c.dilation[a] * (c.window[a] - 1) - 1;
      fits = fits && room >= 0;
      c.out[a] = room < 0 ? 0 : room / c.stride[a] + 1;
      p.x *= c.in[a], p.kernel *= c.window[a], p.y *= c.out[a];
    }
    if (fits) return p;
  }
}

// Adds every product of the convolution to the result of the map.
template <class T>
std::vector<double> literal(Map map, const Problem& p, const std::vector<T>& left, const std::vector<T>& right) {
  const Convolution& c = p.c;
  std::vector<double> result(map == Map::convolve ? p.y : map == Map::input_gradient ? p.x : p.kernel);
  const long ci = c.in_features / c.groups, co = c.out_features / c.groups;
  for (long m = 0; m < c.members; ++m)
    for (long b = 0; b < c.batch; ++b)
      for (long pd = 0; pd < c.out[0]; ++pd)
        for (long ph = 0; ph < c.out[1]; ++ph)
          for (long pw = 0; pw < c.out[2]; ++pw)
            for (long nd = 0; nd < c.window[0]; ++nd)
              for (long nh = 0; nh < c.window[1]; ++nh)
                for (long nw = 0; nw < c.window[2]; ++nw) {
                  const long id = pd * c.stride[0] + nd * c.dilation[0] - c.low[0];
                  const long ih = ph * c.stride[1] + nh * c.dilation[1] - c.low[1];
                  const long iw = pw * c.stride[2] + nw * c.dilation[2] - c.low[2];
                  if (id < 0 || id >= c.in[0] || ih < 0 || ih >= c.in[1] || iw < 0 || iw >= c.in[2]) continue;
                  const long n = m * c.batch + b;
                  const long x = (((n * c.in[0] + id) * c.in[1] + ih) * c.in[2] + iw) * c.in_features;
                  const long y = (((n * c.out[0] + pd) * c.out[1] + ph) * c.out[2] + pw) * c.out_features;
                  const long tap = ((m * c.window[0] + nd) * c.window[1] + nh) * c.window[2] + nw;
                  for (long g = 0; g < c.groups; ++g)
                    for (long i = 0; i < ci; ++i)
                      for (long o = 0; o < co; ++o) {
                        const long at_x = x + g * ci + i, at_y = y + g * co + o;
                        const long at_k = (tap * ci + i) * c.out_features + g * co + o;
                        const long l = map == Map::input_gradient ? at_y : at_x;
                        const long r = map == Map::kernel_gradient ? at_y : at_k;
                        const long to = map == Map::convolve ? at_y : map == Map::input_gradient ? at_x : at_k;
                        result[to] += double(left[l]) * double(right[r]);
                      }
                }
  return result;
}

ForEach with_threads(int threads) {
  return [threads](long count, const std::function<void(long)>& task) {
    std::atomic<long> next{0};
    std::vector<std::thread> others;
    auto take = [&] {
      for (long i; (i = next.fetch_add(1)) < count;) task(i);
    };
    for (int i = 1; i < threads; ++i) others.emplace_back(take);
    take();
    for (auto& other : others) other.join();
  };
}

template <class T>
double error(Map map, Dtype dtype, const Problem& p, std::mt19937& random, int threads) {
  std::normal_distribution<double> normal;
  std::vector<T> left(map == Map::input_gradient ? p.y : p.x), right(map == Map::kernel_gradient ? p.y : p.kernel);
  for (T& value : left) value = T(normal(random));
  for (T& value : right) value = T(normal(random));
  const std::vector<double> want = literal(map, p, left, right);
  std::vector<T> got(want.size(), T(NAN)), again(want.size(), T(NAN)), buffer(buffer_size(map, dtype, p.c), T(NAN));
  run(map, dtype, p.c, left.data(), right.data(), got.data(), buffer.data(), with_threads(threads));
  run(map, dtype, p.c, left.data(), right.data(), again.data(), buffer.data(), with_threads(1));
  if (std::memcmp(got.data(), again.data(), got.size() * sizeof(T))) return INFINITY;  // not the same bits
  double worst = 0, largest = 1e-3;
  for (size_t i = 0; i < want.size(); ++i) {
    largest = std::max(largest, std::abs(want[i]));
    const double off = std::abs(want[i] - double(got[i]));
    worst = std::isnan(off) ? INFINITY : std::max(worst, off);
  }
  return worst / largest;
}

}  // namespace

int main(int, char** arguments) {
  const int count = std::atoi(arguments[1]), seed = std::atoi(arguments[2]), threads = std::atoi(arguments[3]);
  double worst[2] = {0, 0};
  const double most[2] = {1e-5, 1e-13};
  for (int i = 0; i < count; ++i) {
    std::mt19937 random(seed + i);
    const Problem p = draw(random);
    for (Map map : {Map::convolve, Map::input_gradient, Map::kernel_gradient}) {
      const double errors[2] = {error<float>(map, Dtype::float32, p, random, threads),
                                error<double>(map, Dtype::float64, p, random, threads)};
      for (int d = 0; d < 2; ++d) {
        worst[d] = std::max(worst[d], errors[d]);
        if (!(errors[d] <= most[d])) {
          std::printf("geometry %d, map %d, %s: off by %g\n", seed + i, int(map), d ? "float64" : "float32", errors[d]);
          return 1;
        }
      }
    }
  }
  std::printf("%s: %d geometries, worst error %.2g in float32, %.2g in float64\n", instruction_set(), count, worst[0],
              worst[1]);
  return 0;
}
