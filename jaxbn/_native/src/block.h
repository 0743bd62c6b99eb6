// The register block: sums of a few pixels times a few vectors of channels, which stay in registers while they grow.

template <class T>
struct Simd {
  static constexpr int lanes = JAXBN_VECTOR_BYTES / sizeof(T);
  typedef T Vector __attribute__((vector_size(JAXBN_VECTOR_BYTES)));
  typedef T Unaligned __attribute__((vector_size(JAXBN_VECTOR_BYTES), aligned(sizeof(T)), may_alias));
  using Places = decltype(Vector{} < Vector{});  // as many integers
};

template <class T>
inline typename Simd<T>::Vector load(const T* at) {
  return *reinterpret_cast<const typename Simd<T>::Unaligned*>(at);
}

template <class T>
inline void store(T* at, typename Simd<T>::Vector value) {
  *reinterpret_cast<typename Simd<T>::Unaligned*>(at) = value;
}

// The entries of a vector at the given places.
template <class T>
inline typename Simd<T>::Vector permute(typename Simd<T>::Vector vector, typename Simd<T>::Places places) {
#ifdef __clang__
  typename Simd<T>::Vector result;
  for (int k = 0; k < Simd<T>::lanes; ++k) result[k] = vector[places[k]];
  return result;
#else
  return __builtin_shuffle(vector, places);
#endif
}

constexpr int MOST_VECTORS = JAXBN_REGISTERS >= 32 ? 4 : 3;

// How many pixels a block has at most beside so many vectors: sums, the vectors and one pixel's value are in registers.
constexpr int most_pixels(int vectors) {
  constexpr int WITH_32[] = {16, 12, 8, 6}, WITH_16[] = {12, 6, 4, 4};
  return (JAXBN_REGISTERS >= 32 ? WITH_32 : WITH_16)[vectors < MOST_VECTORS ? vectors - 1 : MOST_VECTORS - 1];
}

// The number of equal parts, at most `most` each, that something is cut into, and where a part begins.
inline long parts_of(long size, long most) { return (size + most - 1) / most; }
inline long begin_of(long part, long parts, long size) { return part * size / parts; }

// The panels of a row of channels: each is a few whole vectors, and the last vector may be partly filled.
template <class T>
struct Panels {
  long vectors, count;

  explicit Panels(long channels)
      : vectors(parts_of(channels, Simd<T>::lanes)), count(parts_of(vectors, MOST_VECTORS)) {}

  long first(long panel) const { return begin_of(panel, count, vectors); }
  long width(long panel) const { return first(panel + 1) - first(panel); }
};

// Consecutive entries of the input, and as many rows of weights, that are multiplied with each other.
struct Run {
  long offset, count;
};

// sums(p, v) (+)= the products of the runs of pixel p with the weights' rows.
template <class T, int PIXELS, int VECTORS>
void multiply_whole(const T* in, long in_pixel, const Run* runs, long run_count, const T* weights, long pitch, T* out,
                    long out_pixel, bool accumulate) {
  constexpr int LANES = Simd<T>::lanes;
  typename Simd<T>::Vector sums[PIXELS][VECTORS];
#pragma GCC unroll 16
  for (int p = 0; p < PIXELS; ++p) {
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; ++v) {
      sums[p][v] = accumulate ? load(out + p * out_pixel + v * LANES) : typename Simd<T>::Vector{};
    }
  }
  for (const Run* run = runs; run != runs + run_count; ++run) {
    // An address is a base plus one or two times the distance of pixels, so that a few registers reach all of them.
    const T* base[(PIXELS + 2) / 3];
#pragma GCC unroll 4
    for (int b = 0; b < (PIXELS + 2) / 3; ++b) base[b] = in + run->offset + 3 * b * in_pixel;
    for (long i = 0; i < run->count; ++i, weights += pitch) {
      typename Simd<T>::Vector weight[VECTORS];
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; ++v) weight[v] = load(weights + v * LANES);
#pragma GCC unroll 16
      for (int p = 0; p < PIXELS; ++p) {
        const T value = base[p / 3][i + p % 3 * in_pixel];
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v) sums[p][v] += value * weight[v];
      }
    }
  }
#pragma GCC unroll 16
  for (int p = 0; p < PIXELS; ++p) {
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; ++v) store(out + p * out_pixel + v * LANES, sums[p][v]);
  }
}

// The same for an output that has fewer channels than the vectors have lanes: through a copy that has enough.
template <class T, int PIXELS, int VECTORS>
void multiply(const T* in, long in_pixel, const Run* runs, long run_count, const T* weights, long pitch, T* out,
              long out_pixel, long channels, bool accumulate) {
  constexpr int WIDTH = VECTORS * Simd<T>::lanes;
  if (channels >= WIDTH) {
    multiply_whole<T, PIXELS, VECTORS>(in, in_pixel, runs, run_count, weights, pitch, out, out_pixel, accumulate);
    return;
  }
  T whole[PIXELS * WIDTH] = {};
  if (accumulate) {
    for (int p = 0; p < PIXELS; ++p) memcpy(whole + p * WIDTH, out + p * out_pixel, channels * sizeof(T));
  }
  multiply_whole<T, PIXELS, VECTORS>(in, in_pixel, runs, run_count, weights, pitch, whole, WIDTH, accumulate);
  for (int p = 0; p < PIXELS; ++p) memcpy(out + p * out_pixel, whole + p * WIDTH, channels * sizeof(T));
}

template <class T, int PIXELS, int VECTORS>
struct Multiply {
  static constexpr auto function = multiply<T, PIXELS, VECTORS>;
};

// The block of the given size: BLOCK<T, rows, vectors>::function.
template <class T, template <class, int, int> class BLOCK, int VECTORS, int MOST = most_pixels(VECTORS)>
auto block_of(long rows) {
  if constexpr (MOST > 1) {
    if (rows < MOST) return block_of<T, BLOCK, VECTORS, MOST - 1>(rows);
  }
  return BLOCK<T, MOST, VECTORS>::function;
}

template <class T, template <class, int, int> class BLOCK>
auto block_for(long rows, long vectors) {
  switch (vectors) {
    case 1:
      return block_of<T, BLOCK, 1>(rows);
    case 2:
      return block_of<T, BLOCK, 2>(rows);
    case 3:
      return block_of<T, BLOCK, 3>(rows);
    default:
      return block_of<T, BLOCK, MOST_VECTORS>(rows);
  }
}
