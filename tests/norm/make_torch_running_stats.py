"""Writes what PyTorch's running statistics are after each step of a small training run.

    python tests/norm/make_torch_running_stats.py > tests/norm/torch_running_stats.json

The run is convolution, batch norm, ReLU and a least-squares loss, by gradient descent in float64; the images, the
targets and the initial weights are in the output. It was made with PyTorch 2.13 on a CPU.
"""

import json
from typing import Any

import torch  # pyright: ignore[reportMissingImports]

STEPS, LEARNING_RATE = 6, 0.5
MOMENTA = (0.1, 0.7, None)


def run(momentum: float | None) -> list[dict[str, list[float]]]:
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(2, 3, 3, bias=False)
    norm: Any = torch.nn.BatchNorm2d(3, momentum=momentum)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor(KERNEL))
    optimizer = torch.optim.SGD([*conv.parameters(), *norm.parameters()], LEARNING_RATE)
    steps = []
    for images, targets in zip(IMAGES, TARGETS, strict=True):
        optimizer.zero_grad()
        y = torch.relu(norm(conv(torch.tensor(images))))
        ((y - torch.tensor(targets)) ** 2).mean().backward()
        optimizer.step()
        statistics = norm.state_dict()
        steps.append({name: statistics[f"running_{name}"].tolist() for name in ("mean", "var")})
    return steps


torch.set_default_dtype(torch.float64)
torch.manual_seed(1)
KERNEL = torch.randn(3, 2, 3, 3).round(decimals=3).tolist()
IMAGES = (3 + torch.randn(STEPS, 2, 2, 4, 5)).round(decimals=3).tolist()
TARGETS = torch.randn(STEPS, 2, 3, 2, 3).round(decimals=3).tolist()

if __name__ == "__main__":
    runs = [{"momentum": momentum, "steps": run(momentum)} for momentum in MOMENTA]
    data = {"learning_rate": LEARNING_RATE, "kernel": KERNEL, "images": IMAGES, "targets": TARGETS, "runs": runs}
    print(json.dumps(data, separators=(",", ":")))
