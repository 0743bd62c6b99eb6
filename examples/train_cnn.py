"""Train a small convolutional network on images: handwritten digits, or your own.

    python examples/train_cnn.py
    python examples/train_cnn.py --ensemble 5
    python examples/train_cnn.py --data images.npz --epochs 50

The digits are scikit-learn's 1,797 greyscale images of 8×8. Every gradient of a convolution and of a batch norm comes
from a hand-written rule of jaxbn; the rest is JAX and Optax. Needs the extra: python -m pip install "jaxbn[examples]"
"""

import argparse
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from progress import shown_progress

from jaxbn import cnn, data, training


def main(arguments: Sequence[str] | None = None) -> None:
    parser = make_parser()
    options = parser.parse_args(arguments)
    try:
        dataset = data.load_npz(options.data) if options.data else data.load_digits()
        options.output.mkdir(parents=True, exist_ok=True)
    except data.DataError as error:
        parser.exit(2, f"train_cnn: {error}\n")
    except OSError as error:
        parser.exit(2, f"train_cnn: --output {str(options.output)!r}: {error.strerror}\n")
    count, *size = dataset.x_train.shape
    if options.batch_size > count:
        parser.error(f"argument --batch-size: {options.batch_size} is more than the {count} training images")
    shown = "×".join(map(str, size))
    print(f"{count} training and {len(dataset.x_test)} test images of {shown}, {dataset.classes} classes")

    state, history = train(dataset, options)

    logits = training.predict(state, dataset.x_test).reshape(options.ensemble, -1, dataset.classes)
    answers = logits.argmax(-1)
    vote = np.asarray(training.vote(logits)).argmax(-1)
    if options.ensemble > 1:
        for member, answer in enumerate(answers):
            print(f"test accuracy of seed {options.seed + member}: {np.mean(answer == dataset.y_test):.2%}")
        print(f"test accuracy of their averaged vote: {np.mean(vote == dataset.y_test):.2%}")
    else:
        print(f"test accuracy: {np.mean(vote == dataset.y_test):.2%}")
    print_confusion(dataset.y_test, vote, dataset.classes)
    picture = options.output / "learning_curves.png"
    draw_learning_curves(history, picture)
    print(f"learning curves: {picture}")


def train(dataset: data.Dataset, options: argparse.Namespace) -> tuple[training.TrainState, list[training.Progress]]:
    """The trained network or ensemble, and its progress at the end of each epoch."""
    batches = len(dataset.x_train) // options.batch_size
    steps = options.epochs * batches
    schedule = optax.warmup_cosine_decay_schedule(0.0, options.learning_rate, steps // 10, steps)
    optimizer = optax.adamw(schedule)
    config = cnn.CNNConfig(
        classes=dataset.classes, in_channels=dataset.x_train.shape[-1], features=tuple(options.features)
    )
    # One key trains one network, several keys an ensemble; but for rounding, a member is what its seed trains alone.
    keys = jnp.stack([jax.random.key(options.seed + member) for member in range(options.ensemble)])
    state = training.create_train_state(keys if options.ensemble > 1 else keys[0], config, optimizer)

    history = []
    with shown_progress(options.epochs) as show:
        for latest in training.fit(state, dataset, optimizer, epochs=options.epochs, batch_size=options.batch_size):
            state, progress = latest
            show(progress)
            if progress.test is not None:
                history.append(progress)
    return state, history


def print_confusion(labels: np.ndarray, answers: np.ndarray, classes: int) -> None:
    """The confusion matrix; where the terminal is too narrow for it, the commonest mistakes."""
    from sklearn.metrics import confusion_matrix

    matrix = confusion_matrix(labels, answers, labels=range(classes))
    width = len(str(max(classes - 1, matrix.max()))) + 1
    if 6 + width * classes <= shutil.get_terminal_size().columns:
        print("confusion matrix, a row for each true class, a column for each answer:")
        print("      " + "".join(f"{answer:{width}}" for answer in range(classes)))
        for label, row in enumerate(matrix):
            print(f"{label:5} " + "".join(f"{number or '.':>{width}}" for number in row))
    else:
        print("the confusion matrix is too wide for this terminal; the commonest mistakes:")
        mistakes = matrix - np.diag(np.diag(matrix))
        for place in np.argsort(-mistakes, axis=None, kind="stable")[:10]:
            label, answer = divmod(int(place), classes)
            if mistakes[label, answer]:
                print(f"{mistakes[label, answer]:5} times class {label} was taken for {answer}")


def draw_learning_curves(history: list[training.Progress], path: Path) -> None:
    """Loss and accuracy after each epoch; of an ensemble the mean, and each member in a thin line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    panels = figure.subplots(1, 2)
    for part, color, name in (("train", "C0", "training, while it learns"), ("test", "C1", "test, after the epoch")):
        metrics = [getattr(progress, part) for progress in history]
        loss = np.stack([each.loss for each in metrics]).reshape(len(metrics), -1)
        percent = 100 * np.stack([each.accuracy for each in metrics]).reshape(len(metrics), -1)
        for axes, curves, last in zip(panels, (loss, percent), (".4f", ".1f"), strict=True):
            mean, epochs = curves.mean(1), range(1, len(curves) + 1)
            if curves.shape[1] > 1:
                axes.plot(epochs, curves, color=color, linewidth=0.6, alpha=0.5)
            axes.plot(
                epochs, mean, color=color, marker="o", markersize=3, label=f"{name}: {mean[-1]:{last}} at the end"
            )
    panels[0].set(title="Loss", xlabel="epoch", ylabel="cross-entropy (nats)", yscale="log")
    panels[1].set(title="Accuracy", xlabel="epoch", ylabel="images told right (%)")
    for axes in panels:
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=150)


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


def make_parser() -> argparse.ArgumentParser:
    count = number(int, "a whole number from 1", lambda value: value >= 1)
    seed = number(int, "a whole number from 0 to 2³⁰", lambda value: 0 <= value <= 2**30)
    rate = number(float, "a finite number above 0", lambda value: 0 < value < math.inf)
    parser = argparse.ArgumentParser(
        description="Train a small convolutional network on images, then show what it gets right and where it errs."
    )
    add = parser.add_argument
    about = """images of your own: a file of numpy.savez with x_train, y_train, x_test and y_test, as Keras ships its
        data sets; images (n, height, width) or (n, height, width, channels), uint8 or floating, labels whole numbers
        from 0 (default: scikit-learn's handwritten digits)"""
    add("--data", type=Path, metavar="PATH.npz", help=about)
    about = "how often to go through the training images (default: %(default)s)"
    add("--epochs", type=count, default=20, metavar="N", help=about)
    about = "images that each step learns from (default: %(default)s)"
    add("--batch-size", type=count, default=32, metavar="N", help=about)
    about = "peak of the learning rate, which rises for a tenth of the steps, then falls to 0 (default: %(default)s)"
    add("--learning-rate", type=rate, default=0.01, metavar="RATE", help=about)
    about = "channels of each block; each but the first halves the image's sides (default: 32 64 128)"
    add("--features", type=count, nargs="+", default=[32, 64, 128], metavar="N", help=about)
    about = "networks to train at once, from seeds SEED, SEED+1, …; their averaged vote is tested too (default: 1)"
    add("--ensemble", type=count, default=1, metavar="N", help=about)
    about = "decides the first parameters and the order of the images (default: %(default)s)"
    add("--seed", type=seed, default=0, metavar="SEED", help=about)
    about = "folder for the picture of the learning curves, made if need be (default: %(default)s)"
    add("--output", type=Path, default=Path("runs/train_cnn"), metavar="DIR", help=about)
    return parser


if __name__ == "__main__":
    main()
