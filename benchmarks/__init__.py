"""How fast the gradients are beside `jax.vjp` of plain JAX, and beside Flax, Equinox and PyTorch.

    python -m pip install -e ".[benchmarks]" && python -m benchmarks

`cases` has the table of convolutions and the floor of each ratio, `networks` what is measured on a whole network;
`peers` and `network_peers` do the same with other libraries; `measure` takes the time; `report` shows it.
"""
