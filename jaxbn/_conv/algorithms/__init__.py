"""The algorithms that compute a bilinear map.

Each algorithm is a file with the four functions that `algorithm` defines: ``applies`` says which convolutions it can
compute, and the three maps compute them. `table` says where it is the fastest. `cells` and `micro_batches` are helpers.
"""
