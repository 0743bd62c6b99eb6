"""Measures how fast the gradients are, compared with `jax.vjp` of plain JAX and with Flax, Equinox and PyTorch.

    python -m pip install -e ".[benchmarks]" && python -m benchmarks

`cases` has the table of convolutions, each with its floor: the least ratio of times that it must reach. `convolutions`,
`norms` and `networks` build the programs to compare. `peers` and `network_peers` build them with other libraries.
`measure` times them, `report` and `picture` show the results.
"""
