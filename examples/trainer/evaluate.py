"""Test a network that the trainer has kept, and export it.

    python -m examples.trainer --checkpoint runs/digits
    python -m examples.trainer.evaluate runs/digits
    python -m examples.trainer.evaluate runs/digits --best --export digits.jax

What is exported is loaded where there is JAX, without this package:

    network = jax.export.deserialize(Path("digits.jax").read_bytes())
    probabilities = network.call(images)  # float32, of shape (n, 8, 8, 1), from 0 to 1

Needs the extra: python -m pip install "jaxbn[examples]"
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import optax

from jaxbn import cnn

from . import data, training
from .answers import print_answers
from .leaving import leave_unheard


def main(arguments: Sequence[str] | None = None) -> None:
    parser = make_parser()
    options = parser.parse_args(arguments)
    try:
        evaluate(options)
        print(end="", flush=True)
    except (ValueError, ImportError, training.CheckpointError) as error:
        parser.exit(2, f"evaluate: {error}\n")
    except BrokenPipeError:
        leave_unheard()
    except OSError as error:
        parser.exit(2, f"evaluate: {str(error.filename)!r}: {error.strerror}\n")
    except KeyboardInterrupt:
        parser.exit(128 + signal.SIGINT, "evaluate: stopped by SIGINT\n")


def evaluate(options: argparse.Namespace) -> None:
    checkpoint = training.load_checkpoint(options.checkpoint, best=options.best)
    for damage in checkpoint.damaged.values():
        print(f"evaluate: {damage}", file=sys.stderr)
    settings = settings_of(checkpoint)
    dataset = data.load(options.data) if options.data else data.load_digits()
    check(checkpoint.path, settings, dataset)
    print(f"{checkpoint.path}, after step {checkpoint.step}; {len(dataset.x_test)} test images")
    if data.fingerprint(dataset) != settings["data"]:
        print("the data are not those that it was trained with")

    state = network_of(checkpoint, settings)
    logits = training.predict(state, dataset.x_test)
    print_answers(logits.reshape(settings["ensemble"], -1, dataset.classes), dataset.y_test, settings["seed"])
    if options.export:
        options.export.write_bytes(training.export_network(state, settings["image_shape"]))
        print(f"exported: {options.export}")


def settings_of(checkpoint: training.Checkpoint) -> dict[str, Any]:
    """The settings that the trainer has saved with its network."""
    missing = {"features", "ensemble", "seed", "classes", "image_shape", "data"} - checkpoint.settings.keys()
    if missing:
        raise ValueError(f"{checkpoint.path}: not saved by the trainer: its settings have no {min(missing)!r}")
    return checkpoint.settings


def check(path: Path, settings: dict[str, Any], dataset: data.Dataset) -> None:
    """Whether the network can be asked about the images."""
    network = settings["classes"], settings["image_shape"]
    images = dataset.classes, list(dataset.x_test.shape[1:])
    if network != images:
        has, came = (
            f"{classes} classes in images of {'×'.join(map(str, shape))}" for classes, shape in (network, images)
        )
        raise ValueError(f"{path}: the network is for {has}; the data have {came}")


def network_of(checkpoint: training.Checkpoint, settings: dict[str, Any]) -> training.TrainState:
    """The network or ensemble as it was saved, without what its optimizer kept."""
    members, channels = settings["ensemble"], settings["image_shape"][-1]
    config = cnn.CNNConfig(settings["classes"], channels, tuple(settings["features"]))
    key = jax.random.key(0)  # whatever is drawn from it, the checkpoint's arrays take its place
    return checkpoint.into(
        training.create_train_state(jax.random.split(key, members) if members > 1 else key, config, optax.identity())
    )


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.trainer.evaluate",
        description="Test a network that the trainer has kept, and export it.",
    )
    add = parser.add_argument
    about = "folder that the trainer was given as --checkpoint: the newest in it that is whole; or one of the saves"
    add("checkpoint", type=Path, metavar="CHECKPOINT", help=about)
    about = "the data, in any form that the trainer takes, of which the test images are used (default: the digits)"
    add("--data", type=Path, metavar="PATH", help=about)
    add("--best", action="store_true", help="the checkpoint of the best test accuracy, not the newest")
    about = """file for the network: a program of jax.export, from float32 images to probabilities (of an ensemble, its
        averaged vote), for any number of images, on CPU, CUDA and TPU (default: none)"""
    add("--export", type=Path, metavar="FILE", help=about)
    return parser


if __name__ == "__main__":
    main()
