// Convolutions with few channels in a group. A vector holds output channels of several groups. The view has a plane for
// each such vector and each input channel of a group, whose pixels hold the vector's inputs; so products are of a
// vector of a plane and a vector of weights.

constexpr long MOST_OFFSETS = 64, MOST_TERMS = 9, MOST_PIXELS = 12;

// Where a term's vectors begin in the view and in the weights.
struct Term {
  long offset, weight;
};

// Where the plane of a term begins: one for each tap and each input channel of a group.
template <class T>
inline long offset_of(const Correlation& job, const Rows<T>& rows, long term) {
  return rows.tap_offset(term / job.in_channels) + term % job.in_channels * rows.view.plane;
}

// sums(p) (+)= the products of the vectors at pixel p with the weights' vectors.
template <class T, int PIXELS, int>
void multiply_vectors(const T* in, long in_pixel, const Term* terms, long count, const T* weights, T* out,
                      long out_pixel, bool accumulate) {
  typename Simd<T>::Vector sums[PIXELS];
#pragma GCC unroll 16
  for (int p = 0; p < PIXELS; ++p) sums[p] = accumulate ? load(out + p * out_pixel) : typename Simd<T>::Vector{};
  for (const Term* term = terms; term != terms + count; ++term) {
    const typename Simd<T>::Vector weight = load(weights + term->weight);
    const T* base[(PIXELS + 2) / 3];
#pragma GCC unroll 4
    for (int b = 0; b < (PIXELS + 2) / 3; ++b) base[b] = in + term->offset + 3 * b * in_pixel;
#pragma GCC unroll 16
    for (int p = 0; p < PIXELS; ++p) sums[p] += load(base[p / 3] + p % 3 * in_pixel) * weight;
  }
#pragma GCC unroll 16
  for (int p = 0; p < PIXELS; ++p) store(out + p * out_pixel, sums[p]);
}

template <class T, int PIXELS, int VECTORS>
struct MultiplyVectors {
  static constexpr auto function = multiply_vectors<T, PIXELS, VECTORS>;
};

template <class T>
void correlate_depthwise(const Correlation& job, const Rows<T>& rows, const T* packed, T* out) {
  constexpr long LANES = Simd<T>::lanes;
  const long channels = job.groups * job.out_channels, pitch = padded_channels<T>(job);
  const long terms = rows.taps.count() * job.in_channels, blocks = parts_of(rows.count[2], MOST_PIXELS);
  long begin = 0;
  do {
    Term of_chunk[MOST_OFFSETS];
    const long count = smaller(terms - begin, MOST_OFFSETS);
    for (long i = 0; i < count; ++i) of_chunk[i] = {offset_of(job, rows, begin + i), (begin + i) * pitch};
    for (long first = 0; first < channels; first += LANES) {
      const long planes = first / LANES * job.in_channels * rows.view.plane, lanes = smaller(LANES, channels - first);
      const T* weights = packed + first;
      for (long n = 0; n < rows.images; ++n) {
        for (long d = 0; d < rows.count[0]; ++d) {
          for (long h = 0; h < rows.count[1]; ++h) {
            const T* from = rows.in_row(n, d, h) + planes;
            T* to = out + rows.out_row(job, n, d, h) * channels + first;
            for (long block = 0; block < blocks; ++block) {
              const long at = begin_of(block, blocks, rows.count[2]);
              const long pixels = begin_of(block + 1, blocks, rows.count[2]) - at;
              const auto multiply = block_of<T, MultiplyVectors, 1, MOST_PIXELS>(pixels);
              const T* x = from + at * rows.in_step[2];
              T* y = to + at * rows.out_step[2] * channels;
              const long step = rows.out_step[2] * channels;
              if (lanes == LANES) {
                multiply(x, rows.in_step[2], of_chunk, count, weights, y, step, begin > 0);
              } else {
                T whole[MOST_PIXELS * LANES] = {};
                for (long p = 0; begin > 0 && p < pixels; ++p)
                  memcpy(whole + p * LANES, y + p * step, lanes * sizeof(T));
                multiply(x, rows.in_step[2], of_chunk, count, weights, whole, LANES, begin > 0);
                for (long p = 0; p < pixels; ++p) memcpy(y + p * step, whole + p * LANES, lanes * sizeof(T));
              }
            }
          }
        }
      }
    }
    begin += count;
  } while (begin < terms);
}

template <class T>
void pack_depthwise(const Correlation& job, const Taps& taps, const T* kernel, T* packed) {
  const long pitch = padded_channels<T>(job), tap_size = job.groups * job.in_channels * job.out_channels;
  for (long tap = 0; tap < taps.count(); ++tap) {
    for (long c = 0; c < job.in_channels; ++c, packed += pitch) {
      const T* from = kernel + taps.in_kernel(job, tap) * tap_size + c * job.kernel_in;
      for (long g = 0; g < job.groups; ++g) {
        for (long k = 0; k < job.out_channels; ++k) {
          packed[g * job.out_channels + k] = from[g * job.kernel_group + k * job.kernel_out];
        }
      }
      zero(packed + job.groups * job.out_channels, pitch - job.groups * job.out_channels);
    }
  }
}

// total(t) (+)= sum over the pixels of x(pixel, t) * dy(pixel), vectors of channels, for a few terms.
template <class T, int TERMS, int>
void multiply_vector_pixels(const Rows<T>& rows, const long* offsets, const View<T>& dy, T* total, long pitch,
                            bool first) {
  typename Simd<T>::Vector sums[TERMS];
#pragma GCC unroll 16
  for (int t = 0; t < TERMS; ++t) sums[t] = typename Simd<T>::Vector{};
  const long step = rows.in_step[2];
  for (long n = 0; n < rows.images; ++n) {
    for (long d = 0; d < rows.count[0]; ++d) {
      for (long h = 0; h < rows.count[1]; ++h) {
        const T *x = rows.in_row(n, d, h), *at = dy.at + n * dy.image + d * dy.axis[0] + h * dy.axis[1];
        for (long w = 0; w < rows.count[2]; ++w, at += dy.axis[2], x += step) {
          const typename Simd<T>::Vector cotangent = load(at);
#pragma GCC unroll 16
          for (int t = 0; t < TERMS; ++t) sums[t] += load(x + offsets[t]) * cotangent;
        }
      }
    }
  }
#pragma GCC unroll 16
  for (int t = 0; t < TERMS; ++t) store(total + t * pitch, first ? sums[t] : sums[t] + load(total + t * pitch));
}

template <class T, int TERMS, int VECTORS>
struct MultiplyVectorPixels {
  static constexpr auto function = multiply_vector_pixels<T, TERMS, VECTORS>;
};

// The cotangents of a vector of channels: where they are, or a copy with zeros in the lanes that have no channel.
template <class T>
View<T> cotangents_of(const Correlation& job, const Rows<T>& rows, const T* dy, long first, long lanes, T* scratch) {
  const bool whole = lanes == Simd<T>::lanes;
  const long pixel = whole ? job.groups * job.out_channels : Simd<T>::lanes;
  const long width = whole ? job.out[2] : rows.count[2], height = whole ? job.out[1] : rows.count[1];
  const long depth = whole ? job.out[0] : rows.count[0];
  if (!whole) pack_cotangents(job, rows, dy, first, Simd<T>::lanes, lanes, scratch);
  const T* at = whole ? dy + rows.out_row(job, 0, 0, 0) * pixel + first : scratch;
  return {at, 0, depth * height * width * pixel, {height * width * pixel, width * pixel, pixel}};
}

template <class T>
void add_depthwise_gradient(const Correlation& job, const Rows<T>& rows, const T* dy, T* total, T* scratch,
                            bool first) {
  constexpr long LANES = Simd<T>::lanes;
  const long channels = job.groups * job.out_channels, terms = rows.taps.count() * job.in_channels;
  const long blocks = parts_of(terms, MOST_TERMS);
  for (long k = 0; k < channels; k += LANES) {
    const long planes = k / LANES * job.in_channels * rows.view.plane, lanes = smaller(LANES, channels - k);
    const View<T> cotangents = cotangents_of(job, rows, dy, k, lanes, scratch);
    for (long block = 0; block < blocks; ++block) {
      const long term = begin_of(block, blocks, terms), count = begin_of(block + 1, blocks, terms) - term;
      long offsets[MOST_TERMS];
      for (long t = 0; t < count; ++t) offsets[t] = offset_of(job, rows, term + t) + planes;
      const auto multiply = block_of<T, MultiplyVectorPixels, 1, MOST_TERMS>(count);
      if (lanes == LANES) {
        multiply(rows, offsets, cotangents, total + term * channels + k, channels, first);
      } else {
        T whole[MOST_TERMS * LANES];
        multiply(rows, offsets, cotangents, whole, LANES, true);
        add_rows(whole, LANES, count, lanes, total + term * channels + k, channels, first);
      }
    }
  }
}
