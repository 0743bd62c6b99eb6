"""Data sets of labelled images, one function a file format; `load` finds the format by itself.

Every function returns a `Dataset` that is ready to train on, or raises `DataError`, whose message is one line: the
file, what came and what is wanted. Headers are checked before anything is allocated for what they announce. Nothing is
ever unpickled.
"""

from jaxbn.data.cifar import load_cifar10 as load_cifar10
from jaxbn.data.dataset import Dataset as Dataset, fingerprint as fingerprint
from jaxbn.data.digits import load_digits as load_digits
from jaxbn.data.errors import DataError as DataError
from jaxbn.data.folder import load_folder as load_folder
from jaxbn.data.idx import load_idx as load_idx
from jaxbn.data.loading import load as load
from jaxbn.data.npy import load_npy as load_npy
from jaxbn.data.npz import load_npz as load_npz
from jaxbn.data.stored import Images as Images, StoredImages as StoredImages
