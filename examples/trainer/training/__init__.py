"""Training of `jaxbn.cnn` networks with Optax: one at a time, or an ensemble at once; on one device or on many.

An ensemble of N networks is a `TrainState` whose every array has a leading axis of N members. The functions here take
either kind. What happens to one network is written once; for an ensemble it is mapped over the members with `jax.vmap`,
and for a single network it is called as it is. But for rounding, member i is the network that its key would train
alone, with the images in the same order.

Everything random comes from the state's key, and everything that a run has reached is in the state, so that training
from a state in the middle of a run is the rest of that run.
"""

from .augmentation import Augmentation as Augmentation
from .checkpoints import Checkpoints as Checkpoints
from .devices import data_mesh as data_mesh, make_cpu_devices as make_cpu_devices, spread as spread
from .evaluation import evaluate as evaluate, predict as predict, vote as vote
from .exporting import export_network as export_network
from .interruption import Interruption as Interruption
from .loop import DivergedError as DivergedError, Progress as Progress, fit as fit
from .processes import agree as agree, join_processes as join_processes
from .profiling import trace_steps as trace_steps
from .records import Record as Record, recorder as recorder
from .saved import (
    Checkpoint as Checkpoint,
    CheckpointError as CheckpointError,
    load_checkpoint as load_checkpoint,
)
from .state import (
    Metrics as Metrics,
    TrainState as TrainState,
    create_train_state as create_train_state,
    start_state as start_state,
)
from .step import (
    Finite as Finite,
    StepMetrics as StepMetrics,
    TrainStep as TrainStep,
    make_train_step as make_train_step,
)
