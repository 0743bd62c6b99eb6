"""What the processor reaches at most: independent fused multiply-adds on registers, on every core at once."""

import ctypes
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

LOOP = r"""
#if defined(__AVX512F__)
constexpr int BYTES = 64;
#elif defined(__AVX__)
constexpr int BYTES = 32;
#else
constexpr int BYTES = 16;
#endif
typedef float Vector __attribute__((vector_size(BYTES)));

// Twelve sums, enough to hide the latency of an operation. Returns the number of floating-point operations.
extern "C" long multiply_adds(long count, float* result) {
  Vector sums[12] = {}, factor = {}, term = {};
  for (int i = 0; i < BYTES / 4; ++i) factor[i] = 0.5f + result[i], term[i] = result[i];
  for (int s = 0; s < 12; ++s) sums[s] += s + result[0];  // or the compiler sees that all sums are one
  for (long n = 0; n < count; ++n) {
#pragma GCC unroll 12
    for (int s = 0; s < 12; ++s) sums[s] = sums[s] * factor + term;
  }
  for (int s = 0; s < 12; ++s) result[s] = sums[s][0];
  return count * 12 * (BYTES / 4) * 2;
}
"""
COUNT = 40_000_000
FLAGS = ("-O3", "-march=native", "-ffp-contract=fast", "-shared", "-fPIC")


def multiply_adds() -> Callable[[], float]:
    """A function that measures the operations per second of all cores together, in about 0.1 seconds.

    Raises:
        OSError, subprocess.CalledProcessError: There is no C++ compiler, or it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "loop.cc", Path(folder) / "loop.so"
        source.write_text(LOOP)
        subprocess.run(["c++", *FLAGS, str(source), "-o", str(library)], check=True)
        loop = ctypes.CDLL(str(library)).multiply_adds
    loop.restype, loop.argtypes = ctypes.c_long, (ctypes.c_long, ctypes.POINTER(ctypes.c_float))
    cores = os.cpu_count() or 1

    def on_one_core(_: int) -> int:
        return loop(COUNT, (ctypes.c_float * 16)())  # ctypes lets the other threads run meanwhile

    def measured() -> float:
        with ThreadPoolExecutor(cores) as pool:
            start = time.perf_counter()
            operations = sum(pool.map(on_one_core, range(cores)))
            return operations / (time.perf_counter() - start)

    return measured
