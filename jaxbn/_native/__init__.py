"""The native kernels: the three maps in C++ for the CPU, called through XLA's foreign function interface.

The kernels are a shared library. It does not exist if jaxbn was installed without a C++ compiler, and it is not used if
the environment variable ``JAXBN_NATIVE`` is 0 when jaxbn is imported. Everything works without it, in operations of JAX
alone.
"""

import ctypes
import os
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import jax
import jaxlib
import numpy as np

from jaxbn._validation import public

IS_SWITCHED_OFF = os.environ.get("JAXBN_NATIVE") == "0"
MAPS = ("convolve", "input_gradient", "kernel_gradient")


class NativeKernels(NamedTuple):
    """Whether the native kernels are used, and why."""

    available: bool
    why: str

    def __str__(self) -> str:
        return f"native kernels: {self.why}"


@public
def native_kernels() -> NativeKernels:
    """Reports whether convolutions on the CPU may use the native kernels of this installation.

    Returns:
        A `NativeKernels`: ``available``, and a sentence that names the processor's instruction set or says what is
        missing.

    Example:
        >>> import jaxbn
        >>> isinstance(jaxbn.native_kernels().available, bool)
        True
    """
    library = _library()
    if isinstance(library, str):
        return NativeKernels(False, library)
    name = library.jaxbn_instruction_set().decode()
    return NativeKernels(True, f"compiled for the instruction set {name}")


def buffer_size(map_name: str, dtype: np.dtype, convolution: np.ndarray) -> int:
    """The number of entries of the buffer that a kernel needs besides its operands and its result."""
    library = _library()
    assert not isinstance(library, str)
    numbers = convolution.ctypes.data_as(ctypes.POINTER(ctypes.c_int64))
    return library.jaxbn_buffer_size(MAPS.index(map_name), int(dtype == np.float64), numbers)


def _library() -> ctypes.CDLL | str:
    """The library, or the reason why it is not used."""
    return "switched off by JAXBN_NATIVE=0" if IS_SWITCHED_OFF else _load()


@cache
def _load() -> ctypes.CDLL | str:
    """Load the library and register its kernels in XLA; return a reason if that is impossible."""
    here = Path(__file__).parent
    # An installed wheel has the library in the first folder, a checkout in the second, next to the sources.
    paths = [path for folder in (here / "lib", here / "src") for path in folder.glob("libjaxbn_native.*")]
    if not paths:
        return "not built; install jaxbn again on a machine with a C++ compiler"
    try:
        library = ctypes.CDLL(str(paths[0]))
    except OSError as error:
        return f"could not be loaded: {error}"
    library.jaxbn_buffer_size.restype = ctypes.c_int64
    library.jaxbn_instruction_set.restype = ctypes.c_char_p
    built, running = library.jaxbn_ffi_api_version(), _ffi_api_version()
    # Within a major version, XLA runs libraries that were built against older headers.
    if running is None or built // 1000 != running // 1000 or built > running:
        return f"built for version {built} of XLA's foreign function interface; jaxlib has {running}"
    for name in MAPS:
        handler = jax.ffi.pycapsule(getattr(library, f"jaxbn_{name}"))
        jax.ffi.register_ffi_target(f"jaxbn_{name}", handler, platform="cpu")
    return library


def _ffi_api_version() -> int | None:
    """The version of the interface in the running jaxlib, ``1000 · major + minor``; only its headers contain it."""
    header = Path(jaxlib.__file__).parent / "include" / "xla" / "ffi" / "api" / "c_api.h"
    if not header.exists():
        return None
    found = dict(re.findall(r"#define XLA_FFI_API_(MAJOR|MINOR) (\d+)", header.read_text()))
    return 1000 * int(found["MAJOR"]) + int(found["MINOR"]) if len(found) == 2 else None


_library()  # Loaded at import, so that programs that were compiled and serialised earlier find the kernels.
