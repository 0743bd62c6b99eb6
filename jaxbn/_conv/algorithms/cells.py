"""Splits images into grids of cells of equal size, and joins them, for `patches` and `strided`."""

import jax


def split_into_cells(x: jax.Array, steps: tuple[int, ...]) -> jax.Array:
    """Reshape ``(batch, *grid · steps, channels)`` to ``(batch, *grid, *steps, channels)``."""
    spatial = len(steps)
    pairs = (side for size, step in zip(x.shape[1:-1], steps, strict=True) for side in (size // step, step))
    cells = x.reshape(x.shape[0], *pairs, x.shape[-1])
    return cells.transpose(0, *range(1, 2 * spatial, 2), *range(2, 2 * spatial + 1, 2), 2 * spatial + 1)


def join_cells(cells: jax.Array) -> jax.Array:
    """The inverse of `split_into_cells`."""
    spatial = (cells.ndim - 2) // 2
    grid, steps, channels = cells.shape[1 : 1 + spatial], cells.shape[1 + spatial : -1], cells.shape[-1]
    # A cell's innermost row stays whole: XLA's CPU compiler copies one long axis faster than two short ones.
    rows = cells.reshape(*cells.shape[: 2 * spatial], steps[-1] * channels)
    pairs = (axis for place in range(1, spatial) for axis in (place, place + spatial))
    x = rows.transpose(0, *pairs, spatial, 2 * spatial)
    sizes = (size * step for size, step in zip(grid, steps, strict=True))
    return x.reshape(cells.shape[0], *sizes, channels)
