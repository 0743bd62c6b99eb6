// Convolutions with enough output channels in a group to fill vectors.

// All products of an output, cut into chunks whose weights stay in the first-level cache.
template <class T>
struct Chunks {
  static constexpr long MOST_RUNS = 32, CACHE_BYTES = JAXBN_VECTOR_BYTES == 64 ? 256 * 1024 : 24 * 1024;
  const Rows<T>& rows;
  long run_length, run_count, taps_in_run = 1;  // of the phase
  long most_terms;                              // of a chunk
  long run = 0, done = 0;                       // where the next chunk begins
  bool begun = false;
  Run runs[MOST_RUNS];
  long count = 0, terms = 0;  // of this chunk

  Chunks(const Correlation& job, const Rows<T>& rows, long vectors)
      : rows(rows),
        run_length(job.in_channels),
        run_count(rows.taps.count()),
        most_terms(CACHE_BYTES / (vectors * JAXBN_VECTOR_BYTES)) {
    if (rows.tap_step[2] == job.in_channels && run_count > 0) {  // a row of taps is contiguous
      taps_in_run = rows.taps.axis[2]->taps;
      run_length *= taps_in_run;
      run_count /= taps_in_run;
    }
  }

  long run_offset(long index) const { return rows.tap_offset(index * taps_in_run); }

  // Go to the next chunk; the first may be empty.
  bool next() {
    const bool first = !begun;
    begun = true;
    count = terms = 0;
    while (run < run_count && count < MOST_RUNS && terms < most_terms) {
      const long length = smaller(run_length - done, most_terms - terms);
      runs[count++] = {run_offset(run) + done, length};
      terms += length;
      done += length;
      if (done == run_length) ++run, done = 0;
    }
    return terms > 0 || first;
  }
};

// The panels that a task computes, among those of all groups.
struct Slice {
  long begin, end;

  Slice(const Correlation& job, long panels, long slice)
      : begin(begin_of(slice, job.slices, job.groups * panels)),
        end(begin_of(slice + 1, job.slices, job.groups * panels)) {}
};

template <class T>
void correlate_dense(const Correlation& job, const Rows<T>& rows, const T* all_weights, T* out, long slice) {
  const Panels<T> panels(job.out_channels);
  const long depth = rows.taps.count() * job.in_channels, channels = job.groups * job.out_channels;
  const Slice columns(job, panels.count, slice);
  for (long index = columns.begin; index < columns.end; ++index) {
    const long group = index / panels.count, panel = index % panels.count;
    const long first = panels.first(panel) * Simd<T>::lanes, vectors = panels.width(panel);
    const long pitch = job.packed ? vectors * Simd<T>::lanes : job.kernel_in;
    const T* weights = all_weights + (job.packed ? (group * panels.vectors * Simd<T>::lanes + first) * depth
                                                 : group * job.kernel_group + first);
    const long blocks = parts_of(rows.count[2], most_pixels(vectors));
    bool accumulate = false;
    for (Chunks<T> chunk(job, rows, vectors); chunk.next(); accumulate = true) {
      for (long n = 0; n < rows.images; ++n) {
        for (long d = 0; d < rows.count[0]; ++d) {
          for (long h = 0; h < rows.count[1]; ++h) {
            const T* from = rows.in_row(n, d, h) + group * job.in_channels;
            T* to = out + rows.out_row(job, n, d, h) * channels + group * job.out_channels + first;
            for (long block = 0; block < blocks; ++block) {
              const long begin = begin_of(block, blocks, rows.count[2]);
              const long pixels = begin_of(block + 1, blocks, rows.count[2]) - begin;
              block_for<T, Multiply>(pixels, vectors)(
                  from + begin * rows.in_step[2], rows.in_step[2], chunk.runs, chunk.count, weights, pitch,
                  to + begin * rows.out_step[2] * channels, rows.out_step[2] * channels, job.out_channels - first,
                  accumulate);
            }
          }
        }
      }
      weights += chunk.terms * pitch;
    }
  }
}

template <class T>
void pack_dense(const Correlation& job, const Taps& taps, const T* kernel, T* packed, long group, long panel) {
  const Panels<T> panels(job.out_channels);
  const long tap_size = job.groups * job.in_channels * job.out_channels, count = taps.count();
  const long depth = count * job.in_channels, first = panels.first(panel) * Simd<T>::lanes;
  const long width = panels.width(panel) * Simd<T>::lanes, channels = smaller(width, job.out_channels - first);
  T* to = packed + (group * panels.vectors * Simd<T>::lanes + first) * depth;
  for (long tap = 0; tap < count; ++tap) {
    const T* from = kernel + taps.in_kernel(job, tap) * tap_size + group * job.kernel_group + first * job.kernel_out;
    for (long c = 0; c < job.in_channels; ++c, from += job.kernel_in, to += width) {
      if (job.kernel_out == 1) {
        memcpy(to, from, channels * sizeof(T));
      } else {
        for (long k = 0; k < channels; ++k) to[k] = from[k * job.kernel_out];
      }
      zero(to + channels, width - channels);
    }
  }
}

// Add the first `channels` entries of each row to the total.
template <class T>
void add_rows(const T* rows, long width, long count, long channels, T* total, long pitch, bool first) {
  for (long m = 0; m < count; ++m) {
    for (long k = 0; k < channels; ++k) {
      T& at = total[m * pitch + k];
      at = first ? rows[m * width + k] : at + rows[m * width + k];
    }
  }
}

// total(m, k) (+)= sum over the pixels of x(pixel, m) * dy(pixel, k), for a few consecutive m and a panel of k.
template <class T, int TERMS, int VECTORS>
void multiply_whole_pixels(const Rows<T>& rows, long offset, const T* dy, T* total, long pitch, bool first) {
  constexpr int LANES = Simd<T>::lanes;
  typename Simd<T>::Vector sums[TERMS][VECTORS];
#pragma GCC unroll 16
  for (int m = 0; m < TERMS; ++m) {
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; ++v) sums[m][v] = typename Simd<T>::Vector{};
  }
  for (long n = 0; n < rows.images; ++n) {
    for (long d = 0; d < rows.count[0]; ++d) {
      for (long h = 0; h < rows.count[1]; ++h) {
        const T* x = rows.in_row(n, d, h) + offset;
        for (long w = 0; w < rows.count[2]; ++w, x += rows.in_step[2], dy += VECTORS * LANES) {
          typename Simd<T>::Vector cotangent[VECTORS];
#pragma GCC unroll 4
          for (int v = 0; v < VECTORS; ++v) cotangent[v] = load(dy + v * LANES);
#pragma GCC unroll 16
          for (int m = 0; m < TERMS; ++m) {
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; ++v) sums[m][v] += x[m] * cotangent[v];
          }
        }
      }
    }
  }
#pragma GCC unroll 16
  for (int m = 0; m < TERMS; ++m) {
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; ++v) {
      T* at = total + m * pitch + v * LANES;
      store(at, first ? sums[m][v] : sums[m][v] + load(at));
    }
  }
}

template <class T, int TERMS, int VECTORS>
void multiply_pixels(const Rows<T>& rows, long offset, const T* dy, T* total, long pitch, long channels, bool first) {
  constexpr int WIDTH = VECTORS * Simd<T>::lanes;
  if (channels == WIDTH) {
    multiply_whole_pixels<T, TERMS, VECTORS>(rows, offset, dy, total, pitch, first);
    return;
  }
  T whole[TERMS * WIDTH];
  multiply_whole_pixels<T, TERMS, VECTORS>(rows, offset, dy, whole, WIDTH, true);
  add_rows(whole, WIDTH, TERMS, channels, total, pitch, first);
}

template <class T, int TERMS, int VECTORS>
struct MultiplyPixels {
  static constexpr auto function = multiply_pixels<T, TERMS, VECTORS>;
};

// Copy a panel of the cotangents of a tile, pixel by pixel. Lanes that have no channel are zero, because arithmetic
// with whatever was there before could be slow.
template <class T>
void pack_cotangents(const Correlation& job, const Rows<T>& rows, const T* dy, long first, long width, long channels,
                     T* to) {
  const long pitch = job.groups * job.out_channels;
  for (long n = 0; n < rows.images; ++n) {
    for (long d = 0; d < rows.count[0]; ++d) {
      for (long h = 0; h < rows.count[1]; ++h) {
        const T* from = dy + rows.out_row(job, n, d, h) * pitch + first;
        for (long w = 0; w < rows.count[2]; ++w, from += pitch, to += width) {
          if (channels == width) {
            for (long k = 0; k < width; k += Simd<T>::lanes) store(to + k, load(from + k));
          } else {
            memcpy(to, from, channels * sizeof(T));
            zero(to + channels, width - channels);
          }
        }
      }
    }
  }
}

template <class T>
void add_dense_gradient(const Correlation& job, const Rows<T>& rows, const T* dy, T* total, T* scratch, bool first,
                        long slice) {
  const Panels<T> panels(job.out_channels);
  const long pitch = job.groups * job.out_channels;
  const Slice columns(job, panels.count, slice);
  for (long index = columns.begin; index < columns.end; ++index) {
    const long group = index / panels.count, panel = index % panels.count, vectors = panels.width(panel);
    const long begin = panels.first(panel) * Simd<T>::lanes, width = vectors * Simd<T>::lanes;
    const long channels = smaller(width, job.out_channels - begin), column = group * job.out_channels + begin;
    pack_cotangents(job, rows, dy, column, width, channels, scratch);
    const Chunks<T> runs(job, rows, vectors);
    for (long run = 0; run < runs.run_count; ++run) {
      const long blocks = parts_of(runs.run_length, most_pixels(vectors));
      for (long block = 0; block < blocks; ++block) {
        const long m = begin_of(block, blocks, runs.run_length);
        const long terms = begin_of(block + 1, blocks, runs.run_length) - m;
        block_for<T, MultiplyPixels>(terms, vectors)(rows, runs.run_offset(run) + group * job.in_channels + m, scratch,
                                                     total + (run * runs.run_length + m) * pitch + column, pitch,
                                                     channels, first);
      }
    }
  }
}
