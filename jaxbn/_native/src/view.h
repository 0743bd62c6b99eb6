// The input of a tile: the image itself where the tile lies inside it, a copy with zeros around it elsewhere.

// The images and the j that a task computes.
struct Box {
  long member, image, images, begin[3], size[3];
};

inline long smaller(long a, long b) { return a < b ? a : b; }

inline long image_size(const long* sizes, long channels) { return sizes[0] * sizes[1] * sizes[2] * channels; }

// The j along an axis; no phase has more than the first.
inline long count_of(const Correlation& job, int axis) { return job.axes[axis][0].count; }

inline Box tile_of(const Correlation& job, long task) {
  Box box;
  for (int axis = 2; axis >= 0; --axis) {
    const long tile = task % job.tiles[axis];
    task /= job.tiles[axis];
    box.begin[axis] = tile * job.tile[axis];
    box.size[axis] = smaller(job.tile[axis], count_of(job, axis) - box.begin[axis]);
  }
  box.image = task % job.image_blocks * job.images;
  box.images = smaller(job.images, job.batch - box.image);
  box.member = task / job.image_blocks;
  return box;
}

template <class T>
struct View {
  const T* at;
  long plane, image, axis[3];  // distances in entries: of planes if depthwise, of images, of positions
};

template <class T>
inline long padded_channels(const Correlation& job) {
  return parts_of(job.groups * job.out_channels, Simd<T>::lanes) * Simd<T>::lanes;
}

template <class T>
inline long view_size(const Correlation& job) {
  if (job.in_place) return 0;
  return job.images *
         image_size(job.view, job.depthwise ? job.in_channels * padded_channels<T>(job) : job.groups * job.in_channels);
}

template <class T>
inline void zero(T* at, long count) {
  memset(at, 0, count * sizeof(T));
}

// Copy a row of pixels into the planes of a depthwise convolution. The planes of a vector follow each other.
template <class T>
void copy_to_planes(const Correlation& job, const T* from, T* to, long pixels, long plane) {
  constexpr long LANES = Simd<T>::lanes;
  const long in = job.in_channels, out = job.out_channels, channels = job.groups * out, pitch = job.groups * in;
  if (in == 1 && out == 1 && channels % LANES == 0) {
    for (long pixel = 0; pixel < pixels; ++pixel) {
      for (long k = 0; k < channels; k += LANES) {
        store(to + k / LANES * plane + pixel * LANES, load(from + pixel * channels + k));
      }
    }
    return;
  }
  for (long first = 0; first < channels; first += LANES, to += in * plane) {
    const long lanes = smaller(LANES, channels - first);
    long input[LANES];  // the first input channel of each lane
    for (long k = 0; k < LANES; ++k) input[k] = (first + (k < lanes ? k : 0)) / out * in;
    if (lanes == LANES && input[LANES - 1] - input[0] + in <= LANES && input[0] + LANES <= pitch) {
      typename Simd<T>::Places begin;
      for (long k = 0; k < LANES; ++k) begin[k] = input[k] - input[0];
      for (long pixel = 0; pixel < pixels; ++pixel) {
        const typename Simd<T>::Vector vector = load(from + pixel * pitch + input[0]);
        typename Simd<T>::Places places = begin;
        for (long c = 0; c < in; ++c, places += 1) store(to + c * plane + pixel * LANES, permute<T>(vector, places));
      }
      continue;
    }
    for (long c = 0; c < in; ++c) {
      for (long pixel = 0; pixel < pixels; ++pixel) {
        T vector[LANES];
        for (long k = 0; k < LANES; ++k) vector[k] = from[pixel * pitch + input[k] + c];
        store(to + c * plane + pixel * LANES, load(vector));
      }
    }
  }
}

template <class T>
View<T> view_of(const Correlation& job, const Box& box, const T* in, T* scratch) {
  const long channels = job.groups * job.in_channels, image = image_size(job.in, channels);
  const long pitch = job.depthwise ? Simd<T>::lanes : channels;
  const long planes = job.depthwise ? padded_channels<T>(job) / Simd<T>::lanes * job.in_channels : 1;
  long low[3], size[3];
  bool inside = true;
  for (int axis = 0; axis < 3; ++axis) {
    const long step = job.axes[axis][0].in_step;
    low[axis] = job.in_origin[axis] + step * box.begin[axis];
    size[axis] = job.view[axis] - step * (job.tile[axis] - box.size[axis]);
    inside = inside && low[axis] >= 0 && low[axis] + size[axis] <= job.in[axis];
  }
  in += (box.member * job.batch + box.image) * image;
  if (job.in_place || (inside && !job.depthwise)) {
    const long row = job.in[2] * channels, slab = job.in[1] * row;
    return {in + low[0] * slab + low[1] * row + low[2] * channels, 0, image, {slab, row, channels}};
  }
  const long row = size[2] * pitch, slab = size[1] * row, volume = size[0] * slab, plane = box.images * volume;
  const long left = smaller(low[2] < 0 ? -low[2] : 0, size[2]);
  const long past = low[2] + size[2] - job.in[2], right = smaller(past > 0 ? past : 0, size[2] - left);
  T* to = scratch;
  for (long n = 0; n < box.images; ++n, in += image) {
    for (long d = low[0]; d < low[0] + size[0]; ++d) {
      for (long h = low[1]; h < low[1] + size[1]; ++h, to += row) {
        const bool outside = d < 0 || d >= job.in[0] || h < 0 || h >= job.in[1] || left + right == size[2];
        for (long c = 0; c < planes; ++c) {
          zero(to + c * plane, outside ? row : left * pitch);
          if (!outside) zero(to + c * plane + row - right * pitch, right * pitch);
        }
        if (outside) continue;
        const T* from = in + ((d * job.in[1] + h) * job.in[2] + low[2] + left) * channels;
        if (job.depthwise) {
          copy_to_planes(job, from, to + left * pitch, size[2] - left - right, plane);
        } else {
          memcpy(to + left * pitch, from, (size[2] - left - right) * pitch * sizeof(T));
        }
      }
    }
  }
  return {scratch, plane, volume, {slab, row, pitch}};
}

// The taps of a phase.
struct Taps {
  const Axis* axis[3];

  Taps(const Correlation& job, long phase) {
    for (int a = 2; a >= 0; --a) {
      axis[a] = job.axes[a] + phase % job.phases[a];
      phase /= job.phases[a];
    }
  }

  long count() const { return axis[0]->taps * axis[1]->taps * axis[2]->taps; }

  // The position of a tap in the kernel's window.
  long in_kernel(const Correlation& job, long tap) const {
    const long w = tap % axis[2]->taps, h = tap / axis[2]->taps % axis[1]->taps,
               d = tap / axis[2]->taps / axis[1]->taps;
    const long at[3] = {d, h, w};
    long place = 0;
    for (int a = 0; a < 3; ++a) place = place * job.window[a] + axis[a]->first_tap + axis[a]->kernel_step * at[a];
    return place;
  }
};

// The rows of pixels that a phase has in a tile.
template <class T>
struct Rows {
  Taps taps;
  View<T> view;
  bool empty;
  const T* in;                     // the first tap of the first output
  long begin[3];                   // the first j
  long images, count[3];           // the outputs along each axis
  long in_step[3];                 // entries between the inputs of neighbouring outputs
  long tap_step[3];                // entries between the inputs of neighbouring taps
  long out_begin[3], out_step[3];  // positions of outputs

  Rows(const Correlation& job, long phase, const Box& box, const View<T>& view)
      : taps(job, phase), view(view), empty(false), in(view.at), images(box.images) {
    for (int a = 0; a < 3; ++a) {
      const Axis& axis = *taps.axis[a];
      begin[a] = box.begin[a];
      count[a] = smaller(box.size[a], axis.count - box.begin[a]);
      empty = empty || count[a] <= 0;
      in += (axis.in_start - job.in_origin[a]) * view.axis[a];
      in_step[a] = axis.in_step * view.axis[a];
      tap_step[a] = axis.tap_step * view.axis[a];
      out_begin[a] = axis.out_start + axis.out_step * box.begin[a];
      out_step[a] = axis.out_step;
    }
  }

  const T* in_row(long image, long d, long h) const {
    return in + image * view.image + d * in_step[0] + h * in_step[1];
  }

  // The pixel of the output at which a row begins.
  long out_row(const Correlation& job, long image, long d, long h) const {
    return ((image * job.out[0] + out_begin[0] + out_step[0] * d) * job.out[1] + out_begin[1] + out_step[1] * h) *
               job.out[2] +
           out_begin[2];
  }

  long tap_offset(long tap) const {
    const long width = taps.axis[2]->taps, height = taps.axis[1]->taps;
    return tap % width * tap_step[2] + tap / width % height * tap_step[1] + tap / width / height * tap_step[0];
  }

  long pixels() const { return images * count[0] * count[1] * count[2]; }
};
