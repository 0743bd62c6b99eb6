// The maps as handlers of XLA's foreign function interface, on XLA's threads.
#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <new>

#include "maps.h"
#include "xla/ffi/api/ffi.h"

namespace jaxbn {
namespace {

namespace ffi = xla::ffi;

// Tasks that threads take one after the other. The caller takes them too, until none is left; then it waits for those
// that other threads have begun. So it waits for no thread that never starts, even if the pool is full.
struct Work {
  std::function<void(long)> task;  // valid until the caller returns, which is after the last task
  const long count;
  std::atomic<long> next{0}, done{0};
  std::atomic<bool> out_of_memory{false};
  std::mutex mutex;
  std::condition_variable all_done;

  Work(std::function<void(long)> task, long count) : task(std::move(task)), count(count) {}

  void take() {
    for (long i; (i = next.fetch_add(1)) < count;) {
      try {
        task(i);
      } catch (const std::bad_alloc&) {
        out_of_memory = true;
      }
      if (done.fetch_add(1) + 1 == count) {
        std::lock_guard<std::mutex> lock(mutex);
        all_done.notify_all();
      }
    }
  }

  void wait() {
    std::unique_lock<std::mutex> lock(mutex);
    all_done.wait(lock, [this] { return done.load() == count; });
  }
};

void for_each(ffi::ThreadPool& pool, long count, const std::function<void(long)>& task) {
  const long helpers = std::min<long>(pool.num_threads(), count) - 1;
  if (helpers < 1) {
    for (long i = 0; i < count; ++i) task(i);
    return;
  }
  auto work = std::make_shared<Work>(task, count);
  for (long i = 0; i < helpers; ++i) pool.Schedule([work] { work->take(); });
  work->take();
  work->wait();
  if (work->out_of_memory) throw std::bad_alloc();
}

template <Map MAP>
ffi::Error compute(ffi::ThreadPool pool, ffi::Span<const int64_t> numbers, ffi::AnyBuffer left, ffi::AnyBuffer right,
                   ffi::Result<ffi::AnyBuffer> result, ffi::Result<ffi::AnyBuffer> buffer) {
  if (numbers.size() != CONVOLUTION_NUMBERS) return ffi::Error::InvalidArgument("jaxbn: unexpected attributes");
  Convolution convolution;
  std::copy(numbers.begin(), numbers.end(), reinterpret_cast<int64_t*>(&convolution));
  const auto element_type = left.element_type();
  if ((element_type != ffi::F32 && element_type != ffi::F64) || right.element_type() != element_type ||
      result->element_type() != element_type) {
    return ffi::Error::InvalidArgument("jaxbn: the native kernels compute in float32 and float64 alone");
  }
  const Dtype dtype = element_type == ffi::F32 ? Dtype::float32 : Dtype::float64;
  if (static_cast<long>(buffer->element_count()) < buffer_size(MAP, dtype, convolution)) {
    return ffi::Error::InvalidArgument(
        "jaxbn: the program was compiled for another build of jaxbn or another processor; compile it again");
  }
  try {
    run(MAP, dtype, convolution, left.untyped_data(), right.untyped_data(), result->untyped_data(),
        buffer->untyped_data(),
        [&pool](long count, const std::function<void(long)>& task) { for_each(pool, count, task); });
  } catch (const std::bad_alloc&) {
    return ffi::Error(ffi::ErrorCode::kResourceExhausted, "jaxbn: there is no memory left for a convolution's tiles");
  }
  return ffi::Error::Success();
}

}  // namespace

#pragma GCC visibility push(default)

#define HANDLER(name, map)                                                         \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(name, compute<map>,                                \
                                ffi::Ffi::Bind()                                   \
                                    .Ctx<ffi::ThreadPool>()                        \
                                    .Attr<ffi::Span<const int64_t>>("convolution") \
                                    .Arg<ffi::AnyBuffer>()                         \
                                    .Arg<ffi::AnyBuffer>()                         \
                                    .Ret<ffi::AnyBuffer>()                         \
                                    .Ret<ffi::AnyBuffer>())

HANDLER(jaxbn_convolve, Map::convolve);
HANDLER(jaxbn_input_gradient, Map::input_gradient);
HANDLER(jaxbn_kernel_gradient, Map::kernel_gradient);

}  // namespace jaxbn

extern "C" {

const char* jaxbn_instruction_set() { return jaxbn::instruction_set(); }

int64_t jaxbn_buffer_size(int map, int is_float64, const int64_t* numbers) {
  return jaxbn::buffer_size(static_cast<jaxbn::Map>(map), static_cast<jaxbn::Dtype>(is_float64),
                            *reinterpret_cast<const jaxbn::Convolution*>(numbers));
}

int jaxbn_ffi_api_version() { return XLA_FFI_API_MAJOR * 1000 + XLA_FFI_API_MINOR; }
}

#pragma GCC visibility pop
