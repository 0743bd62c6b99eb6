"""The rows of `benchmarks.bridges` in PyTorch, with its channels-last memory layout for images."""

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks.measure import Run

IMAGES = (64, 3, 32, 32)
WIDTH, CLASSES = 32, 10


def torch_runs() -> dict[str, Callable[[], Run]]:
    """By the names of the cases; the training step is the same for every library."""
    torch: Any = importlib.import_module("torch")
    steps = dict.fromkeys(("nnx", "Equinox", "linen", "Haiku"), _training_step)
    cases = {"#23713": _depthwise, "#13800": _grouped, "#26266": _dilated, "#12868": _in_a_loop, **steps}
    return {name: partial(make, torch) for name, make in cases.items()}


def _draw(torch: Any, *shape: int) -> Any:
    return torch.from_numpy(np.random.default_rng(0).normal(size=shape).astype(np.float32))


def _depthwise(torch: Any) -> Run:
    layer = torch.nn.Conv2d(256, 256, 3, padding=1, groups=256).to(memory_format=torch.channels_last)
    x = _draw(torch, 1, 256, 124, 124).contiguous(memory_format=torch.channels_last)
    return torch.no_grad()(lambda: layer(x))


def _grouped(torch: Any) -> Run:
    x, kernel = _draw(torch, 2, 512, 1024).requires_grad_(), _draw(torch, 512, 1, 5).requires_grad_()

    def gradients() -> Any:
        y = torch.nn.functional.conv1d(x, kernel, padding=2, groups=512)
        return torch.autograd.grad((y**2).sum(), (x, kernel))

    return gradients


def _dilated(torch: Any) -> Run:
    x, kernel = _draw(torch, 32, 32, 1024), _draw(torch, 32, 1, 5)
    return torch.no_grad()(lambda: torch.nn.functional.conv1d(x, kernel, padding=32, dilation=16, groups=32))


def _in_a_loop(torch: Any) -> Run:
    x, kernel = _draw(torch, 1, 256, 1024), _draw(torch, 256, 256, 1)
    return torch.no_grad()(lambda: torch.nn.functional.conv1d(torch.nn.functional.conv1d(x, kernel), kernel))


def _training_step(torch: Any) -> Run:
    """The loss of a step, the new running statistics, and the gradients."""
    layers: list[Any] = []
    for into, out, groups in ((3, WIDTH, 1), (WIDTH, WIDTH, WIDTH), (WIDTH, 2 * WIDTH, 1)):
        layers += [torch.nn.Conv2d(into, out, 3, padding=1, groups=groups, bias=False), torch.nn.BatchNorm2d(out)]
        layers.append(torch.nn.ReLU())
    head = [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(2 * WIDTH, CLASSES)]
    model = torch.nn.Sequential(*layers, *head).to(memory_format=torch.channels_last)
    x = _draw(torch, *IMAGES).contiguous(memory_format=torch.channels_last)
    params = list(model.parameters())
    return lambda: torch.autograd.grad((model(x) ** 2).mean(), params)
