"""The options of `python -m examples.trainer`."""

import argparse
import math
from collections.abc import Callable
from pathlib import Path


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.trainer",
        description="Train a small convolutional network on images, then show what it gets right and where it errs.",
    )
    for add_to in (_add_images, _add_training, _add_keeping, _add_devices):
        add_to(parser)
    return parser


def number(kind: type, wanted: str, allowed: Callable[[float], bool]) -> Callable[[str], float]:
    """A type for argparse: what `kind` reads and `allowed` accepts."""

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not allowed(value):
            raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
        return value

    return parse


_count = number(int, "a whole number from 1", lambda value: value >= 1)
_count_from_0 = number(int, "a whole number from 0", lambda value: value >= 0)
_seed = number(int, "a whole number from 0 to 2³⁰", lambda value: 0 <= value <= 2**30)
_rate = number(float, "a finite number above 0", lambda value: 0 < value < math.inf)
_share = number(float, "a number above 0, and at most 1", lambda value: 0 < value <= 1)


def _add_images(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("images").add_argument
    about = """images of your own: a .npz file as Keras ships its data sets, or a folder: of MNIST's or Fashion-MNIST's
        IDX files, of CIFAR-10's binary version, of train/CLASS/*.png and test/CLASS/*.png, or of x_train.npy,
        y_train.npy, x_test.npy and y_test.npy (or x_train-00000.npy, …), which may be larger than memory (default:
        scikit-learn's handwritten digits)"""
    add("--data", type=Path, metavar="PATH", help=about)
    about = "move each image that is learnt from by up to so many pixels up or down, left or right (default: 0)"
    add("--shift", type=_count_from_0, default=0, metavar="PIXELS", help=about)
    add("--flip", action="store_true", help="mirror every second of them, at random, left to right")
    about = "learn from a random part of each, with sides from this share on, as large as the whole (default: 1)"
    add("--crop", type=_share, default=1.0, metavar="SHARE", help=about)


def _add_training(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("training").add_argument
    about = "how often to go through the training images (default: %(default)s)"
    add("--epochs", type=_count, default=20, metavar="N", help=about)
    about = "images that each step learns from, on all devices together (default: %(default)s)"
    add("--batch-size", type=_count, default=32, metavar="N", help=about)
    about = "peak of the learning rate, which rises for a tenth of the steps, then falls to 0 (default: %(default)s)"
    add("--learning-rate", type=_rate, default=0.01, metavar="RATE", help=about)
    about = "channels of each block; each but the first halves the image's sides (default: 32 64 128)"
    add("--features", type=_count, nargs="+", default=[32, 64, 128], metavar="N", help=about)
    about = "networks to train at once, from seeds SEED, SEED+1, …; their averaged vote is tested too (default: 1)"
    add("--ensemble", type=_count, default=1, metavar="N", help=about)
    about = "decides the first parameters, the order of the images and what is done to them (default: %(default)s)"
    add("--seed", type=_seed, default=0, metavar="SEED", help=about)
    about = "stop when more steps than this in a row are not finite; such steps change nothing (default: %(default)s)"
    add("--patience", type=_count_from_0, default=10, metavar="STEPS", help=about)


def _add_keeping(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("what is kept").add_argument
    about = """folder for metrics.jsonl, settings.json and the picture of the learning curves, made if need be (default:
        %(default)s)"""
    add("--output", type=Path, default=Path("runs/trainer"), metavar="DIR", help=about)
    about = """folder for checkpoints: the last three and the best; a run that was stopped or killed goes on from the
        newest when the same command is given again (default: none are kept)"""
    add("--checkpoint", type=Path, metavar="DIR", help=about)
    about = "save every so many steps, too, and not only after each epoch (default: only then)"
    add("--save-every", type=_count, metavar="STEPS", help=about)
    add("--tensorboard", type=Path, metavar="DIR", help="folder for what TensorBoard shows (default: none)")
    add(
        "--profile",
        type=Path,
        metavar="DIR",
        help="folder for a trace of some steps, for JAX's profiler (default: none)",
    )


def _add_devices(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("devices").add_argument
    about = "spread each batch over so many devices, of all processes together (default: one of each process)"
    add("--devices", type=_count, metavar="N", help=about)
    about = "normalise each device's part of a batch by itself (default: by the statistics of the whole batch)"
    add("--local-batch-norm", action="store_true", help=about)
    about = "where the first of several processes listens, the same for all (default: there is one process)"
    add("--coordinator", metavar="HOST:PORT", help=about)
    add("--process-count", type=_count, metavar="N", help="how many processes there are (default: 1)")
    add("--process-id", type=_count_from_0, metavar="I", help="which of them this is, from 0 (default: 0)")
