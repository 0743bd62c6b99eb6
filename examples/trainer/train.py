"""Train a small convolutional network on images: handwritten digits, or your own.

    python -m examples.trainer
    python -m examples.trainer --checkpoint runs/digits      # killed, it goes on when it is started again
    python -m examples.trainer --ensemble 5 --devices 2
    python -m examples.trainer --data images.npz --epochs 50

The digits are scikit-learn's 1,797 greyscale images of 8×8. Every gradient of a convolution and of a batch norm comes
from a hand-written rule of jaxbn; the rest is JAX and Optax. Needs the extra: python -m pip install "jaxbn[examples]"
"""

import argparse
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from jaxbn import cnn

from . import data, training
from .answers import print_answers
from .learning_curves import draw_learning_curves
from .leaving import leave_unheard
from .options import make_parser
from .progress import watched

History = list[dict[str, Any]]  # a row an epoch, as JSON has it


class Stopped(Exception):
    """All processes have stopped before the end: the status to exit with, and why."""


def main(arguments: Sequence[str] | None = None) -> None:
    options = make_parser().parse_args(arguments)
    several = options.coordinator, options.process_id, options.process_count
    if options.devices:
        training.make_cpu_devices(max(1, options.devices // (options.process_count or 1)))
    try:
        with training.join_processes(*several, tell=lambda what: complain(f"{what}; {kept_in(options.checkpoint)}")):
            status = run(options)
    except (ValueError, OSError) as error:
        complain(error)
        status = 2
    if status:
        sys.exit(status)


def run(options: argparse.Namespace) -> int:
    """All of it, in one of perhaps several processes; returns the status to exit with."""
    try:
        mesh = training.data_mesh(options.devices or jax.process_count()) if is_spread(options) else None
        dataset = data.load(options.data) if options.data else data.load_digits()
        check(options, dataset, mesh)
        options.output.mkdir(parents=True, exist_ok=True)
        state, history = train(dataset, mesh, options)
        report(state, history, dataset, options)
    except (ValueError, ImportError) as error:  # of what was asked for, or of what the files hold
        complain(error)
        sys.exit(2)
    except BrokenPipeError:
        leave_unheard()
    except OSError as error:
        complain(f"{str(error.filename or options.output)!r}: {error.strerror}")
        sys.exit(2)
    except training.CheckpointError as error:
        complain(error)
        sys.exit(1)
    except KeyboardInterrupt:  # before the training or after it
        complain("stopped by SIGINT")
        sys.exit(128 + signal.SIGINT)
    except Stopped as stopped:
        status, message = stopped.args
        if jax.process_index() == 0:
            complain(message)
        return status
    return 0


def complain(message: object) -> None:
    sys.stderr.write(f"trainer: {message}\n")  # in one piece: JAX's threads may write lines there at the same time
    sys.stderr.flush()


def say(message: str) -> None:
    """Of several processes, the first speaks."""
    if jax.process_index() == 0:
        print(message, flush=True)


def is_spread(options: argparse.Namespace) -> bool:
    """Whether batches are spread over a mesh; if not, they are on JAX's first device."""
    return bool(options.devices or options.process_count)


def check(options: argparse.Namespace, dataset: data.Dataset, mesh: Mesh | None) -> None:
    """Whether the options go with the images and the devices."""
    count, *size = dataset.x_train.shape
    devices = 1 if mesh is None else mesh.size
    if options.batch_size > count:
        raise ValueError(f"argument --batch-size: {options.batch_size} is more than the {count} training images")
    if options.batch_size % devices:
        raise ValueError(f"argument --batch-size: {options.batch_size} is no multiple of the {devices} devices")
    total, most = options.epochs * (count // options.batch_size), np.iinfo(np.int32).max
    if total > most:
        raise ValueError(f"argument --epochs: {options.epochs} are {total} steps; at most {most} are counted")
    if options.shift >= min(size[:2]):
        raise ValueError(f"argument --shift: {options.shift} is not below the images' sides, {size[0]} and {size[1]}")
    if options.local_batch_norm and mesh is None:
        raise ValueError("argument --local-batch-norm: it is of several devices; --devices says how many")
    shown = "×".join(map(str, size))
    say(f"{count} training and {len(dataset.x_test)} test images of {shown}, {dataset.classes} classes")


def train(dataset: data.Dataset, mesh: Mesh | None, options: argparse.Namespace) -> tuple[training.TrainState, History]:
    """The trained network or ensemble, and its metrics of each epoch."""
    with ExitStack() as opened:
        interruption = opened.enter_context(training.Interruption())
        state, optimizer = begin(dataset, options)
        if mesh is not None:
            state = training.spread(state, mesh)
        decided = settings(options, dataset, mesh)
        checkpoints = opened.enter_context(checkpoints_of(options, decided))
        state, history = resume(state, checkpoints) if checkpoints else (state, [])
        watch = opened.enter_context(watched(options, decided, int(np.max(state.step))))
        run = steps(state, dataset, optimizer, options)
        try:
            for state, progress in run:
                watch(progress)
                if progress.test is not None:
                    history.append(row(progress))
                stopping = training.agree(interruption.signal or 0)
                if checkpoints and (stopping or is_due(progress, options)):
                    accuracy = None if progress.test is None else float(np.mean(progress.test.accuracy))
                    checkpoints.save(state, history, accuracy=accuracy)
                if stopping:
                    name = signal.Signals(stopping).name
                    message = f"stopped by {name} after step {progress.step}; {kept(checkpoints)}"
                    raise Stopped(128 + stopping, message)
        except training.DivergedError as error:
            raise Stopped(1, f"{error}; {kept(checkpoints)}") from error
    return state, history


def begin(
    dataset: data.Dataset, options: argparse.Namespace
) -> tuple[training.TrainState, optax.GradientTransformation]:
    """The network or ensemble before its first step."""
    steps = options.epochs * (len(dataset.x_train) // options.batch_size)
    schedule = optax.warmup_cosine_decay_schedule(0.0, options.learning_rate, steps // 10, steps)
    optimizer = optax.adamw(schedule)
    config = cnn.CNNConfig(
        classes=dataset.classes, in_channels=dataset.x_train.shape[-1], features=tuple(options.features)
    )
    # One key trains one network, several keys an ensemble; but for rounding, a member is what its seed trains alone.
    keys = jnp.stack([jax.random.key(options.seed + member) for member in range(options.ensemble)])
    return training.create_train_state(keys if options.ensemble > 1 else keys[0], config, optimizer), optimizer


def settings(options: argparse.Namespace, dataset: data.Dataset, mesh: Mesh | None) -> dict[str, Any]:
    """What decides the numbers of a run: what must be the same when it goes on."""
    names = ("features", "ensemble", "seed", "epochs", "batch_size", "learning_rate", "shift", "flip", "crop")
    return {name: getattr(options, name) for name in names} | {
        "data": data.fingerprint(dataset),
        "image_shape": dataset.x_train.shape[1:],
        "classes": dataset.classes,
        "local_batch_norm": mesh.size if mesh is not None and options.local_batch_norm else None,
    }


def checkpoints_of(options: argparse.Namespace, settings: dict[str, Any]) -> Any:
    return training.Checkpoints(options.checkpoint, settings) if options.checkpoint else nullcontext()


def resume(state: training.TrainState, checkpoints: training.Checkpoints) -> tuple[training.TrainState, History]:
    """The newest checkpoint that is whole, if there is one."""
    state, history = checkpoints.restore(state)
    if jax.process_index() == 0:
        for damage in checkpoints.damaged:
            complain(damage)
    if checkpoints.resumed:
        say(f"going on from {checkpoints.resumed}, after step {np.max(state.step)}")
    return state, history


def kept(checkpoints: training.Checkpoints | None) -> str:
    """Where a run that was stopped can go on from."""
    if checkpoints is None:
        return "nothing is kept without --checkpoint"
    try:
        checkpoints.wait()
    except training.CheckpointError as error:
        return str(error)
    return f"the last checkpoint is {checkpoints.last}" if checkpoints.last else "there is no checkpoint yet"


def kept_in(directory: Path | None) -> str:
    """The same, where there is no time to ask."""
    return f"what is kept is in {directory}" if directory else kept(None)


def is_due(progress: training.Progress, options: argparse.Namespace) -> bool:
    return progress.test is not None or bool(options.save_every and progress.step % options.save_every == 0)


def steps(
    state: training.TrainState,
    dataset: data.Dataset,
    optimizer: optax.GradientTransformation,
    options: argparse.Namespace,
) -> Iterator[tuple[training.TrainState, training.Progress]]:
    augment = training.Augmentation(options.shift, options.flip, options.crop)
    run = training.fit(
        state,
        dataset,
        optimizer,
        epochs=options.epochs,
        batch_size=options.batch_size,
        augment=None if augment == training.Augmentation() else augment,
        local_batch_norm=options.local_batch_norm,
        patience=options.patience,
    )
    if options.profile:
        left = options.epochs * (len(dataset.x_train) // options.batch_size) - int(np.max(state.step))
        run = training.trace_steps(run, options.profile, steps=left)
    return run


def row(progress: training.Progress) -> dict[str, Any]:
    """An epoch's metrics: numbers, or lists with one of each member."""
    return {"epoch": progress.epoch} | {
        f"{part}_{name}": np.asarray(metric).tolist()
        for part in ("train", "test")
        for name, metric in getattr(progress, part)._asdict().items()
    }


def report(state: training.TrainState, history: History, dataset: data.Dataset, options: argparse.Namespace) -> None:
    """What the network gets right, where it errs, and how it came to that."""
    logits = training.predict(state, dataset.x_test).reshape(options.ensemble, -1, dataset.classes)
    if jax.process_index() > 0:
        return
    picture = options.output / "learning_curves.png"
    try:
        print_answers(logits, dataset.y_test, options.seed)
    finally:  # also where whoever reads the answers leaves in the middle
        draw_learning_curves(history, picture)
    say(f"learning curves: {picture}")


if __name__ == "__main__":
    main()
