"""A training application for `jaxbn.cnn` networks, which is not part of the library; `README.md` says how to use it.

`train` and `evaluate` are its two commands, `training` is the run, `data` loads data sets.
"""
