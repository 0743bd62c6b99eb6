"""Data sets of labelled images, one function a file format; `load` finds the format by itself.

Every function returns a `Dataset` that is ready to train on, or raises `DataError`, whose message is one line: the
file, what came and what is wanted. Headers are checked before anything is allocated for what they announce. Nothing is
ever unpickled.
"""

from .cifar import load_cifar10 as load_cifar10
from .dataset import Dataset as Dataset, fingerprint as fingerprint
from .digits import load_digits as load_digits
from .errors import DataError as DataError
from .folder import load_folder as load_folder
from .idx import load_idx as load_idx
from .loading import load as load
from .npy import load_npy as load_npy
from .npz import load_npz as load_npz
from .stored import Images as Images, StoredImages as StoredImages
