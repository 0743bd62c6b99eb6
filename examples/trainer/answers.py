"""How many of a network's answers are right, and which classes it confuses."""

import shutil

import numpy as np

from . import training


def print_answers(logits: np.ndarray, labels: np.ndarray, seed: int) -> None:
    """Accuracy and confusion of logits of shape (members, n, classes), the first member's seed being `seed`."""
    answers = logits.argmax(-1)
    vote = np.asarray(training.vote(logits)).argmax(-1)
    if len(answers) > 1:
        for member, answer in enumerate(answers):
            print(f"test accuracy of seed {seed + member}: {np.mean(answer == labels):.2%}")
        print(f"test accuracy of their averaged vote: {np.mean(vote == labels):.2%}")
    else:
        print(f"test accuracy: {np.mean(vote == labels):.2%}")
    print_confusion(labels, vote, logits.shape[-1])


def print_confusion(labels: np.ndarray, answers: np.ndarray, classes: int) -> None:
    """The confusion matrix; where the terminal is too narrow for it, the commonest mistakes."""
    pairs, counts = np.unique(np.stack([labels, answers], axis=1), axis=0, return_counts=True)
    width = len(str(max(classes - 1, counts.max()))) + 1
    if 6 + width * classes <= shutil.get_terminal_size().columns:
        print("confusion matrix, a row for each true class, a column for each answer:")
        print("      " + "".join(f"{answer:{width}}" for answer in range(classes)))
        matrix = np.zeros((classes, classes), int)  # only here: of very many classes it would fill the memory
        matrix[tuple(pairs.T)] = counts
        for label, row in enumerate(matrix):
            print(f"{label:5} " + "".join(f"{number or '.':>{width}}" for number in row))
    else:
        print("the confusion matrix is too wide for this terminal; the commonest mistakes:")
        wrong = pairs[:, 0] != pairs[:, 1]
        for place in np.argsort(-counts[wrong], kind="stable")[:10]:
            label, answer = pairs[wrong][place]
            print(f"{counts[wrong][place]:5} times class {label} was taken for {answer}")
