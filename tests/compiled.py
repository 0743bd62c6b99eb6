"""Programs that are compiled once, and looked up in a directory when they are met again."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
from jax.experimental.compilation_cache.compilation_cache import reset_cache


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
