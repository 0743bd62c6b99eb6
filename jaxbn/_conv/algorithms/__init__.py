"""The ways to compute a bilinear map: one file an algorithm, all of the shape that `algorithm` defines.

An algorithm says what it ``applies`` to and is right for all of that. `table` says where it is the fastest.
"""
