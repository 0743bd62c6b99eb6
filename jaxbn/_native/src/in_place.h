// Depthwise convolutions with one output channel for each input channel, and whole vectors of them: the image is read
// where it is, and the taps beyond its edges are left out.

// The part [first, last) of the indices 0 to count - 1 at which `start + step * index` is in [0, size).
struct Part {
  long first, last;

  Part(long start, long step, long count, long size)
      : first(smaller(start < 0 ? parts_of(-start, step) : 0, count)),
        last(start >= size ? first : smaller(parts_of(size - start, step), count)) {
    if (last < first) last = first;
  }
};

// Neighbouring pixels of an output row that meet the same taps inside the image. A term's weight is that of the first
// channel.
template <class T>
struct Stretch {
  const T* in;  // where the first pixel meets the first tap, which may be outside the image
  long out;     // the first pixel in the output
  long pixels;
  const Term* terms;
  long count;
};

// Call `compute(stretch)` for the stretches of each row: the pixels that meet all columns of taps, and each other one.
template <class T, class Compute>
void for_each_stretch(const Correlation& job, const Rows<T>& rows, const Compute& compute) {
  const Axis &depth = *rows.taps.axis[0], &height = *rows.taps.axis[1], &width = *rows.taps.axis[2];
  const long start = width.in_start + width.in_step * rows.begin[2];
  const long last_tap = width.taps > 0 ? width.tap_step * (width.taps - 1) : 0;
  const long low = Part(start, width.in_step, rows.count[2], job.in[2]).first;
  const long high = Part(start + last_tap, width.in_step, rows.count[2], job.in[2]).last;
  Term terms[MOST_OFFSETS];
  for (long n = 0; n < rows.images; ++n) {
    for (long d = 0; d < rows.count[0]; ++d) {
      for (long h = 0; h < rows.count[1]; ++h) {
        const Part slabs(depth.in_start + depth.in_step * (rows.begin[0] + d), depth.tap_step, depth.taps, job.in[0]);
        const Part lines(height.in_start + height.in_step * (rows.begin[1] + h), height.tap_step, height.taps,
                         job.in[1]);
        for (long begin = 0, end; begin < rows.count[2]; begin = end) {
          end = begin >= low && begin < high ? high : begin + 1;
          const Part columns(start + width.in_step * begin, width.tap_step, width.taps, job.in[2]);
          long count = 0;
          for (long i = slabs.first; i < slabs.last; ++i) {
            for (long j = lines.first; j < lines.last; ++j) {
              for (long k = columns.first; k < columns.last; ++k) {
                terms[count++] = {i * rows.tap_step[0] + j * rows.tap_step[1] + k * rows.tap_step[2],
                                  ((i * height.taps + j) * width.taps + k) * job.groups};
              }
            }
          }
          compute(Stretch<T>{rows.in_row(n, d, h) + begin * rows.in_step[2],
                             rows.out_row(job, n, d, h) + begin * rows.out_step[2], end - begin, terms, count});
        }
      }
    }
  }
}

template <class T>
void correlate_in_place(const Correlation& job, const Rows<T>& rows, const T* packed, T* out) {
  const long channels = job.groups, in_step = rows.in_step[2], out_step = rows.out_step[2];
  for_each_stretch(job, rows, [&](const Stretch<T>& stretch) {
    const long blocks = parts_of(stretch.pixels, MOST_PIXELS);
    for (long block = 0; block < blocks; ++block) {
      const long begin = begin_of(block, blocks, stretch.pixels);
      const long pixels = begin_of(block + 1, blocks, stretch.pixels) - begin;
      const auto multiply = block_of<T, MultiplyVectors, 1, MOST_PIXELS>(pixels);
      const T* x = stretch.in + begin * in_step;
      T* y = out + (stretch.out + begin * out_step) * channels;
      for (long k = 0; k < channels; k += Simd<T>::lanes) {
        multiply(x + k, in_step, stretch.terms, stretch.count, packed + k, y + k, out_step * channels, false);
      }
    }
  });
}

// total(t) += sum over the pixels of x(pixel, t) * dy(pixel), vectors of channels, for a few terms.
template <class T, int TERMS, int>
void multiply_stretch(const Term* terms, const T* x, long x_step, const T* dy, long dy_step, long pixels, T* total) {
  typename Simd<T>::Vector sums[TERMS];
  long offsets[TERMS];
#pragma GCC unroll 16
  for (int t = 0; t < TERMS; ++t) sums[t] = load(total + terms[t].weight), offsets[t] = terms[t].offset;
  for (long pixel = 0; pixel < pixels; ++pixel, x += x_step, dy += dy_step) {
    const typename Simd<T>::Vector cotangent = load(dy);
#pragma GCC unroll 16
    for (int t = 0; t < TERMS; ++t) sums[t] += load(x + offsets[t]) * cotangent;
  }
#pragma GCC unroll 16
  for (int t = 0; t < TERMS; ++t) store(total + terms[t].weight, sums[t]);
}

template <class T, int TERMS, int VECTORS>
struct MultiplyStretch {
  static constexpr auto function = multiply_stretch<T, TERMS, VECTORS>;
};

template <class T>
void add_gradient_in_place(const Correlation& job, const Rows<T>& rows, const T* dy, T* total) {
  const long channels = job.groups;
  for_each_stretch(job, rows, [&](const Stretch<T>& stretch) {
    const long blocks = parts_of(stretch.count, MOST_TERMS);
    for (long block = 0; block < blocks; ++block) {
      const long begin = begin_of(block, blocks, stretch.count);
      const long count = begin_of(block + 1, blocks, stretch.count) - begin;
      const auto multiply = block_of<T, MultiplyStretch, 1, MOST_TERMS>(count);
      for (long k = 0; k < channels; k += Simd<T>::lanes) {
        multiply(stretch.terms + begin, stretch.in + k, rows.in_step[2], dy + stretch.out * channels + k, channels,
                 stretch.pixels, total + k);
      }
    }
  });
}
