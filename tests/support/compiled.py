"""Programs that are not to take long to compile: without effort, or once and then looked up in a directory."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import jax
import pytest
from jax._src import compiler
from jax.experimental.compilation_cache.compilation_cache import reset_cache

WITHOUT_EFFORT = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,  # loops are LLVM's code at once, not first MLIR's
    "xla_cpu_parallel_codegen_split_count": 1,  # one module, not one for each thread
}


@cache
def without_effort() -> dict[str, Any]:
    """`jax.jit`'s ``compiler_options`` for a fifth of the time: those of them that this version of XLA has."""

    def has(name: str, value: Any) -> bool:
        try:
            jax.jit(lambda: 0, compiler_options={name: value}).lower().compile()
        except jax.errors.JaxRuntimeError as error:
            if "No such compile option" not in str(error):
                raise
            return False
        return True

    return {name: value for name, value in WITHOUT_EFFORT.items() if has(name, value)}


def environment_without_effort() -> dict[str, str]:
    """This process's, for a program of its own."""
    flags = " ".join(f"--{name}={value}".lower() for name, value in without_effort().items())
    return os.environ | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}"}


@contextmanager
def compiled_without_effort() -> Iterator[None]:
    """Everything, single operations too, for which JAX has no such setting."""
    options, of_jax = tuple(without_effort().items()), compiler.get_compile_options

    def with_options(*args: Any, **kwargs: Any) -> Any:
        found = of_jax(*args, **kwargs)
        found.env_option_overrides = [*found.env_option_overrides, *options]
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiler, "get_compile_options", with_options)
        yield


@contextmanager
def compiled_in(directory: Path) -> Iterator[None]:
    """JAX's cache of compiled programs, for all of them.

    It goes by a program's text and its options: what differs in anything is compiled anew, as every mutant is.
    """
    settings = {
        "jax_compilation_cache_dir": str(directory),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    reset_cache()  # what JAX has decided about the directory before
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    reset_cache()
