"""The programs in PyTorch. Images are stored with the channels last, though their axes are in the order N C H W."""

import importlib
import platform
from collections.abc import Callable, Iterable, Sequence
from math import prod
from typing import Any, TypeAlias

import numpy as np

from benchmarks.timing import Run

torch: Any = importlib.import_module("torch")  # a type checker may run where PyTorch is not installed
nn, functional = torch.nn, torch.nn.functional
Tensor: TypeAlias = Any
Module: TypeAlias = Any
Shape = Sequence[int]
LAYOUTS = {1: torch.contiguous_format, 2: torch.channels_last, 3: torch.channels_last_3d}


def versions() -> dict[str, str]:
    return {"torch": torch.__version__, "python of torch": platform.python_version()}


def draw(*shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_normal(shape, np.float32))


def channels_last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=LAYOUTS[tensor.ndim - 2])


def convolution(
    quantity: str, x: Shape, kernel: Shape, stride: int, padding: str, groups: int, transposed: bool, repeats: int
) -> Run:
    """The forward pass or a gradient. ``x`` is (N, *spatial, C) and ``kernel`` (*window, C / groups, O)."""
    arguments = quantity, x, kernel, stride, padding, groups, transposed
    runs = [_convolution(*arguments) for _ in range(repeats)]
    return runs[0] if repeats == 1 else lambda: [run() for run in runs]


def _convolution(
    quantity: str, x: Shape, kernel: Shape, stride: int, padding: str, groups: int, transposed: bool
) -> Run:
    *window, into, out = kernel
    images = channels_last(draw(x[0], x[-1], *x[1:-1])).requires_grad_()
    weight = channels_last(draw(out, into, *window)).requires_grad_()
    function = getattr(functional, f"conv{'_transpose' if transposed else ''}{len(window)}d")
    options: dict[str, Any] = {"stride": stride, "groups": groups, "padding": 0}
    if padding == "SAME":  # PyTorch pads both sides equally; with a stride, "SAME" pads as much, but unequally.
        options["padding"] = [(side - 1) // 2 for side in window]
    if transposed:
        options["output_padding"] = [side % 2 for side in window]
    if quantity == "forward":
        return torch.no_grad()(lambda: function(images, weight, **options))
    y = function(images, weight, **options)
    dy = channels_last(torch.randn(y.shape))
    leaf = images if quantity == "dx" else weight
    return lambda: torch.autograd.grad(y, leaf, dy, retain_graph=True)


def batch_norm(*shape: int) -> Run:
    """Forward and backward. ``shape`` is (N, H, W, C)."""
    x, dy = (torch.randn(*shape).movedim(-1, 1) for _ in range(2))
    gamma, beta = (torch.randn(shape[-1]).requires_grad_() for _ in range(2))
    leaves = (x.requires_grad_(), gamma, beta)

    def run() -> Any:
        y = functional.batch_norm(x, None, None, gamma, beta, training=True)
        return torch.autograd.grad(y, leaves, dy)

    return run


def normalised(x: list[Any], epsilon: float) -> list[Any]:
    """The output of batch norm for images as nested lists (N, H, W, C), in the same form."""
    images = torch.tensor(x).movedim(-1, 1).contiguous()  # PyTorch's default layout, in which it is more accurate
    y = functional.batch_norm(images, None, None, training=True, eps=epsilon)
    return y.movedim(1, -1).tolist()


def cnn(widths: Shape, classes: int, learning_rate: float, shape: Shape) -> Run:
    """Training steps of the network of `jaxbn.cnn`."""
    layers: list[Module] = []
    for into, out, stride in zip(widths[:-1], widths[1:], (1, 2, 2), strict=True):
        layers += [nn.Conv2d(into, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
    return _training(nn.Sequential(*layers, *_head(widths[-1], classes)), classes, learning_rate, shape)


def resnet(widths: Shape, blocks: Sequence[Shape], classes: int, learning_rate: float, shape: Shape) -> Run:
    """Training steps of the network of `benchmarks.resnet`; a block is its input, its output and its stride."""
    layers = [_conv_norm(3, 3, widths[0], 1), nn.ReLU(), *(_Block(*block) for block in blocks)]
    return _training(nn.Sequential(*layers, *_head(widths[-1], classes)), classes, learning_rate, shape)


def _head(width: int, classes: int) -> tuple[Module, ...]:
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)


def _conv_norm(side: int, into: int, out: int, stride: int) -> Module:
    return nn.Sequential(nn.Conv2d(into, out, side, stride, side // 2, bias=False), nn.BatchNorm2d(out))


class _Block(nn.Module):
    def __init__(self, into: int, out: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(_conv_norm(3, into, out, stride), nn.ReLU(), _conv_norm(3, out, out, 1))
        self.shortcut = _conv_norm(1, into, out, stride) if stride > 1 or into != out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.shortcut(x) + self.residual(x))


def _training(network: Module, classes: int, learning_rate: float, shape: Shape) -> Run:
    """A step for each batch; ``shape`` is (N, H, W, C), or has an axis of batches in front."""
    network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), learning_rate)
    batches = draw(*shape).reshape(-1, *shape[-4:]).movedim(-1, -3)
    targets = torch.randint(classes, (prod(shape[:-4]), shape[-4]))

    def run() -> None:
        for batch, target in zip(batches, targets, strict=True):
            optimizer.zero_grad()
            functional.cross_entropy(network(batch), target).backward()
            optimizer.step()

    return run


def depthwise_layer() -> Run:
    layer = nn.Conv2d(256, 256, 3, padding=1, groups=256).to(memory_format=torch.channels_last)
    x = channels_last(draw(1, 256, 124, 124))
    return torch.no_grad()(lambda: layer(x))


def grouped_gradient() -> Run:
    x, kernel = draw(2, 512, 1024).requires_grad_(), draw(512, 1, 5).requires_grad_()

    def gradients() -> Any:
        y = functional.conv1d(x, kernel, padding=2, groups=512)
        return torch.autograd.grad((y**2).sum(), (x, kernel))

    return gradients


def dilated_depthwise() -> Run:
    x, kernel = draw(32, 32, 1024), draw(32, 1, 5)
    return torch.no_grad()(lambda: functional.conv1d(x, kernel, padding=32, dilation=16, groups=32))


def in_a_loop() -> Run:
    x, kernel = draw(1, 256, 1024), draw(256, 256, 1)
    return torch.no_grad()(lambda: functional.conv1d(functional.conv1d(x, kernel), kernel))


def bridges_step(width: int, classes: int, shape: Shape) -> Run:
    """The loss of one step, the new running statistics, and the gradients. ``shape`` is (N, H, W, 3)."""
    layers: list[Module] = []
    for into, out, groups in ((3, width, 1), (width, width, width), (width, 2 * width, 1)):
        conv = nn.Conv2d(into, out, 3, padding=1, groups=groups, bias=False)
        layers += [conv, nn.BatchNorm2d(out), nn.ReLU()]
    model = nn.Sequential(*layers, *_head(2 * width, classes)).to(memory_format=torch.channels_last)
    x, params = draw(*shape).movedim(-1, 1), list(model.parameters())
    return lambda: torch.autograd.grad((model(x) ** 2).mean(), params)


def kept_bytes(form: str, activation: str, blocks: int, shape: Shape) -> int:
    """The bytes that a chain of basic blocks keeps for its backward pass, without parameters and images."""
    channels = shape[-1]
    layers = [_Basic(form, getattr(functional, activation), channels) for _ in range(blocks)]
    network = nn.Sequential(*layers)
    x = torch.ones(*shape).movedim(-1, 1).requires_grad_()
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = (network(x) ** 2).mean()
    loss.backward()
    given: Iterable[Tensor] = (x, *network.parameters(), *network.buffers())
    places = kept.keys() - {tensor.untyped_storage().data_ptr() for tensor in given}
    return sum(kept[place].untyped_storage().nbytes() for place in places)


class _Basic(nn.Module):
    def __init__(self, form: str, activation: Callable[[Tensor], Tensor], channels: int) -> None:
        super().__init__()
        self.form, self.activation = form, activation
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(2))
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        (conv_1, conv_2), (norm_1, norm_2), activation = self.convs, self.norms, self.activation
        if self.form == "pre-activation":
            return x + conv_2(activation(norm_2(conv_1(activation(norm_1(x))))))
        return activation(x + norm_2(conv_2(activation(norm_1(conv_1(x))))))
