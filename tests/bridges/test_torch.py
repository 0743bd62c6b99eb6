"""PyTorch's layers brought over and back, and folded: beside PyTorch's own numbers, which need no PyTorch here."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbn
import jaxbn.torch

STORED = json.loads((Path(__file__).parents[1] / "campaigns" / "pytorch.json").read_text())["stored"]
CONVERSIONS = {
    "Conv": (jaxbn.torch.conv_from_torch, jaxbn.torch.conv_to_torch, jaxbn.conv),
    "ConvTranspose": (
        jaxbn.torch.conv_transpose_from_torch,
        jaxbn.torch.conv_transpose_to_torch,
        jaxbn.conv_transpose,
    ),
}


def channels_last(values: Any) -> jax.Array:
    return jnp.moveaxis(jnp.asarray(values), 1, -1)


def arrays_of(record: dict[str, Any]) -> dict[str, np.ndarray]:
    return {name: np.array(value) for name, value in record["state"].items()}


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """In PyTorch's place, something whose tensors are NumPy's arrays."""
    stand_in = SimpleNamespace(from_numpy=lambda array: array, tensor=np.array, bfloat16="bfloat16")
    monkeypatch.setattr(jaxbn.torch, "_torch", lambda: stand_in)


@pytest.mark.parametrize("record", STORED, ids=lambda record: record["layer"])
@pytest.mark.usefixtures("torch")
def test_a_layer_there_and_back(record: dict[str, Any]) -> None:
    state, x, want = arrays_of(record), channels_last(record["x"]), channels_last(record["y"])
    name = record["layer"][:-2]
    if name == "BatchNorm":
        gamma, beta, running = jaxbn.torch.batch_norm_from_torch(state)
        got = (
            jaxbn.batch_norm(x, gamma, beta)[0]
            if running is None
            else jaxbn.batch_norm_inference(x, running.mean, running.var, gamma, beta)
        )
        back = jaxbn.torch.batch_norm_to_torch(gamma, beta, running)
    else:
        from_torch, to_torch, function = CONVERSIONS[name]
        options = {name: tuple(record["options"][name]) for name in ("stride", "padding", "dilation")}
        kernel, bias = from_torch(state)
        got = function(x, kernel, bias, groups=record["options"]["groups"], **options)
        back = to_torch(kernel, bias)
    np.testing.assert_allclose(got, want, atol=1e-12)
    assert back.keys() == state.keys()
    for name, array in state.items():
        np.testing.assert_array_equal(back[name], array)


@pytest.mark.usefixtures("torch")
def test_pytorch_has_both_parameters_or_none_and_one_count() -> None:
    gamma = jnp.arange(3.0)
    running = jaxbn.RunningStats(jnp.zeros(3), jnp.ones(3), jnp.array([4, 7, 5]))
    state = jaxbn.torch.batch_norm_to_torch(gamma, None, running)
    assert (state["bias"].tolist(), state["num_batches_tracked"]) == ([0, 0, 0], 7)
    assert jaxbn.torch.batch_norm_to_torch(None, gamma)["weight"].tolist() == [1, 1, 1]
    assert jaxbn.torch.batch_norm_to_torch(None, None) == {}


def test_bfloat16_goes_over_by_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    class OfNumpy:
        def __init__(self, array: np.ndarray) -> None:
            self.array, self.dtype = array, array.dtype

        def to(self, dtype: Any) -> "OfNumpy":
            self.dtype = dtype
            return self

    monkeypatch.setattr(jaxbn.torch, "_torch", lambda: SimpleNamespace(from_numpy=OfNumpy, bfloat16="torch.bfloat16"))
    weight = jaxbn.torch.conv_to_torch(jnp.full((3, 1, 2), 1.5, jnp.bfloat16))["weight"]
    assert (weight.array.dtype, weight.dtype, weight.array[0, 0, 0]) == (np.float32, "torch.bfloat16", 1.5)


def test_a_module_is_known_by_its_class() -> None:
    class Conv2d:
        def state_dict(self) -> dict[str, Any]:
            return {"weight": Tensor(np.ones((2, 1, 3, 3), np.float32))}

    class Subclass(Conv2d):
        pass

    kernel, bias = jaxbn.torch.conv_from_torch(Subclass())
    assert (kernel.shape, kernel.dtype, bias) == ((3, 3, 1, 2), jnp.bfloat16, None)


class Tensor:
    """What is read of a tensor of bfloat16."""

    dtype = "torch.bfloat16"

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def detach(self) -> "Tensor":
        return self

    cpu = float = detach

    def numpy(self) -> np.ndarray:
        return self.array


GROUPS = [(False, 1), (False, 2), (True, 1), (True, 2)]


@pytest.mark.parametrize(("transposed", "groups"), GROUPS)
@pytest.mark.parametrize(
    "given", [(True, True, True), (False, True, False), (True, False, True), (False, False, False)]
)
@pytest.mark.parametrize("layout", [None, ("NCHW", "OIHW", "NCHW")])
def test_folding(transposed: bool, groups: int, given: tuple[bool, bool, bool], layout: Any) -> None:
    rng = np.random.default_rng(0)
    shape = (3, 2, 6 // groups, 4) if transposed else (3, 2, 4 // groups, 6)
    kernel, x = jnp.asarray(rng.normal(size=shape)), jnp.asarray(rng.normal(size=(2, 5, 7, 4)))
    if layout is not None:
        kernel, x = jnp.transpose(kernel, (3, 2, 0, 1)), jnp.moveaxis(x, -1, 1)
    bias, gamma, beta = (jnp.asarray(rng.normal(size=6)) if each else None for each in given)
    running = jaxbn.RunningStats(jnp.asarray(rng.normal(size=6)), jnp.asarray(rng.random(6)), jnp.ones(6, jnp.int32))
    function: Callable[..., jax.Array] = jaxbn.conv_transpose if transposed else jaxbn.conv
    options: dict[str, Any] = {"stride": 2, "padding": 1, "groups": groups, "dimension_numbers": layout}
    y = function(x, kernel, bias, **options)
    axis = -1 if layout is None else 1
    want = jaxbn.batch_norm_inference(y, running.mean, running.var, gamma, beta, axis=axis, epsilon=1e-3)
    folded = jaxbn.fold_batch_norm(
        kernel,
        bias,
        running,
        gamma,
        beta,
        transposed=transposed,
        groups=groups,
        dimension_numbers=layout,
        epsilon=1e-3,
    )
    assert folded[0].shape == kernel.shape
    np.testing.assert_allclose(function(x, *folded, **options), want, atol=1e-12)


WEIGHT = np.ones((4, 2, 3, 3))
RUNNING = jaxbn.RunningStats(jnp.zeros(4), jnp.ones(4), jnp.zeros(4, jnp.int32))
ERRORS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (
        lambda: jaxbn.torch.conv_from_torch(3),
        TypeError,
        "conv_from_torch: `source` is of type int; it must be PyTorch's Conv1d, Conv2d, Conv3d, or the part",
    ),
    (
        lambda: jaxbn.torch.conv_from_torch({"weight": WEIGHT, "running_mean": WEIGHT}),
        ValueError,
        "conv_from_torch: `source` has 'running_mean'; its keys must be 'weight', 'bias'",
    ),
    (
        lambda: jaxbn.torch.conv_transpose_from_torch({"bias": WEIGHT}),
        ValueError,
        "conv_transpose_from_torch: `source` lacks 'weight'; its keys must be 'weight', 'bias'",
    ),
    (
        lambda: jaxbn.torch.conv_from_torch({"weight": WEIGHT[0, 0]}),
        ValueError,
        "conv_from_torch: `weight` has shape (3, 3); it must have rank 3, 4 or 5",
    ),
    (
        lambda: jaxbn.torch.batch_norm_from_torch({"weight": np.ones(3), "running_mean": np.ones(3)}),
        ValueError,
        "batch_norm_from_torch: `source` lacks 'bias' and lacks 'num_batches_tracked' and lacks 'running_var'",
    ),
    (
        lambda: jaxbn.torch.batch_norm_from_torch({"weight": np.ones(3), "bias": np.ones(2)}),
        ValueError,
        "batch_norm_from_torch: `source` has arrays of the shapes {'weight': (3,), 'bias': (2,)}",
    ),
    (
        lambda: jaxbn.torch.conv_to_torch(jnp.ones((2, 2))),
        ValueError,
        "conv_to_torch: `kernel` has shape (2, 2); it must have rank 3, 4 or 5",
    ),
    (
        lambda: jaxbn.fold_batch_norm(jnp.ones((3, 3, 2, 5)), None, RUNNING),
        ValueError,
        "fold_batch_norm: `mean` has shape (4,); it must be (5,), one entry for each output channel",
    ),
    (
        lambda: jaxbn.fold_batch_norm(jnp.ones((3, 3, 2, 4)), None, RUNNING, groups=3),
        ValueError,
        "fold_batch_norm: `groups` is 3; it must divide the 4 channels of the kernel's last axis",
    ),
    (
        lambda: jaxbn.fold_batch_norm(jnp.ones((2, 4)), None, RUNNING),
        ValueError,
        "fold_batch_norm: `kernel` has shape (2, 4); it must have rank 3, 4 or 5",
    ),
    (
        lambda: jaxbn.fold_batch_norm(jnp.ones((3, 3, 2, 4)), None, cast(Any, None)),
        TypeError,
        "fold_batch_norm: `running` is of type NoneType; it must be RunningStats",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=[message for *_, message in ERRORS])
def test_what_is_wrong_is_named(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match="^" + re.escape(message)):
        call()


def test_without_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(jaxbn.torch, "import_module", missing)
    with pytest.raises(ImportError, match=r"jaxbn\.torch: PyTorch is not installed; pip install torch"):
        jaxbn.torch.conv_to_torch(jnp.ones((3, 3, 1, 1)))
