"""The training loops, the comparison and the picture of `from_pytorch.py`."""

import copy
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from digits import load_digits
from machine import description
from matplotlib.figure import Figure
from tqdm import tqdm

SIDE, BATCH, RATE = 32, 64, 0.03
COMPARED = 10
"""The number of batches after which the running statistics are compared."""

Batches = Sequence[tuple[np.ndarray, np.ndarray]]


class Results(NamedTuple):
    """The values in which the libraries are compared, in JAX's layouts."""

    inference: Any  # the logits of the first batch
    training: Any
    gradients: Any
    running: Any  # after a forward pass in training mode for each batch
    in_inference: Sequence[Any]  # the output of each ReLU for the first batch, and the logits
    in_training: Sequence[Any]


ROWS = {
    "inference": "logits in inference",
    "training": "logits in training",
    "gradients": "gradients, the worst of all arrays",
    "running": f"running statistics after {COMPARED} batches, the worst",
}


def batches(steps: int, seed: int) -> tuple[Batches, Batches, Batches, np.ndarray]:
    """Returns batches for two trainings and for the comparison, and the test images."""
    data = load_digits()
    images, tests = (
        np.repeat(np.asarray(jax.image.resize(x, (len(x), SIDE, SIDE, 1), "linear")), 3, -1)
        for x in (data.x_train, data.x_test)
    )
    draws = np.random.default_rng(seed).integers(0, len(images), (2 * steps + COMPARED, BATCH))
    drawn = [(images[rows], data.y_train[rows]) for rows in draws]
    return drawn[:steps], drawn[steps : 2 * steps], drawn[2 * steps :], tests


# Plain gradient descent has no state, so only the network must be converted.


def train_torch(model: Any, batches: Batches) -> list[float]:
    model.train()
    optimizer, losses = torch.optim.SGD(model.parameters(), RATE), []
    for images, labels in tqdm(batches, desc="PyTorch", unit="step"):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(as_tensor(images)), torch.from_numpy(labels).long())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def train_jax(gradients: Any, params: Any, running: Any, batches: Batches) -> tuple[Any, Any, list[float]]:
    losses = []
    for batch in tqdm(batches, desc="JAX", unit="step"):
        (loss, (_, running, _)), slopes = gradients(params, running, *batch)
        params = jax.tree.map(lambda old, slope: old - RATE * slope, params, slopes)
        losses.append(float(loss))
    return params, running, losses


def as_tensor(images: np.ndarray) -> Any:
    return torch.from_numpy(images).movedim(-1, 1).contiguous()


def infer(model: Any, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model.eval()(as_tensor(images)).numpy()


def of_torch(model: Any, batches: Batches, from_torch: Callable[[Any], Any], dtype: Any) -> Results:
    model, outputs = copy.deepcopy(model).to(dtype), []
    for module in model.modules():
        if isinstance(module, (torch.nn.ReLU, torch.nn.Linear)):
            module.register_forward_hook(lambda *call: outputs.append(call[2]))
    (images, labels), *others = (
        (as_tensor(images).to(dtype), torch.from_numpy(labels).long()) for images, labels in batches
    )
    model.eval()(images)
    logits = model.train()(images)
    torch.nn.functional.cross_entropy(logits, labels).backward()
    gradients, _ = from_torch({name: parameter.grad for name, parameter in model.named_parameters()})
    layers = [each.detach().movedim(1, -1).numpy() for each in outputs]
    in_inference, in_training = layers[: len(layers) // 2], layers[len(layers) // 2 :]
    with torch.no_grad():
        for images, _ in others:
            model(images)
    running = from_torch(model.state_dict())[1]
    return Results(in_inference[-1], in_training[-1], gradients, running, in_inference, in_training)


def of_jax(apply: Any, gradients: Any, params: Any, running: Any, batches: Batches) -> Results:
    inference, (_, in_inference) = apply(params, running, batches[0][0])
    (_, (training, _, in_training)), slopes = gradients(params, running, *batches[0])
    for batch in batches:
        (_, (_, running, _)), _ = gradients(params, running, *batch)
    return Results(inference, training, slopes, running, [*in_inference, inference], [*in_training, training])


def difference(got: Any, want: Any) -> float:
    """The largest difference, relative to the largest entry of ``want``. For several arrays, the worst counts."""

    def of_array(got: Any, want: Any) -> float:
        got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
        return float(np.abs(got - want).max() / np.abs(want).max())

    return max(jax.tree.leaves(jax.tree.map(of_array, got, want)))


def print_table(ours: Results, theirs: Results, precise: Results, changes: dict[str, float]) -> None:
    """Prints the differences in float32 and, for comparison, those of each library from PyTorch in float64."""
    print(
        f"{'largest difference, relative to the largest entry':50}{'JAX from':>12}{'JAX from':>12}{'PyTorch from':>14}"
    )
    print(f"{'':50}{'PyTorch':>12}{'float64':>12}{'float64':>14}")
    for field, name in ROWS.items():
        got, want, exact = (getattr(each, field) for each in (ours, theirs, precise))
        print(f"{name:50}{difference(got, want):12.1e}{difference(got, exact):12.1e}{difference(want, exact):14.1e}")
    for name, value in changes.items():
        print(f"{name:50}{value:12.1e}")


def print_ratio(unfolded: Callable[[], Any], folded: Callable[[], Any], rounds: int = 15) -> None:
    """Prints the ratio of the median times of two compiled functions, which are called in turn."""
    times = np.empty((rounds, 2))
    for place in np.ndindex(times.shape):
        start = time.perf_counter()
        jax.block_until_ready((unfolded, folded)[place[1]]())
        times[place] = time.perf_counter() - start
    unfolded_time, folded_time = np.median(times, 0)
    print(f"unfolded inference takes {unfolded_time / folded_time:.2f} times as long ({description('jax')})")


def draw(ours: Results, theirs: Results, precise: Results, losses: Sequence[list[float]], path: Path) -> None:
    """Draws the differences of each layer's output (left), and PyTorch's and JAX's losses (right)."""
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for color, mode in (("C0", "training"), ("C1", "inference")):
        got, want, exact = (getattr(each, f"in_{mode}") for each in (ours, theirs, precise))
        left.plot([*map(difference, got, want)], "o-", color=color, markersize=4, label=f"JAX from PyTorch, {mode}")
        left.plot([*map(difference, want, exact)], ":", color=color, label=f"PyTorch from its float64, {mode}")
    left.axhline(np.finfo(np.float32).eps, color="0.4", linewidth=0.8, label="ε of float32, 1.2e-7")
    left.set_xticks([0, 2.5, 6.5, 10.5, 14.5, 17], ["stem", *(f"layer{stage}" for stage in range(1, 5)), "fc"])
    left.set(yscale="log", ylim=(5e-8, 5e-5), title="Difference of each layer's output", ylabel="of the largest entry")
    steps, (start, *others) = len(losses[0]), losses
    right.plot(range(1, steps + 1), start, color="0.4", label="PyTorch")
    styles = (
        {"color": "0.4", "linewidth": 5, "alpha": 0.3, "label": "PyTorch, trained on"},
        {"label": "JAX, trained on"},
    )
    for further, style in zip(others, styles, strict=True):
        right.plot(range(steps, 2 * steps + 1), [start[-1], *further], **style)
    right.axvline(steps, color="0.4", linestyle=":", linewidth=0.8)
    right.set(yscale="log", title="Training goes on in JAX", xlabel="step", ylabel="cross-entropy of a batch")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=150)
