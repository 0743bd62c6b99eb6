"""The native kernels: where they are used, and that their results do not depend on threads, loops or the caller.

Their values are compared with the other algorithms' in `test_algorithms` and `test_gradients`, and with literal sums on
thousands of drawn convolutions by ``python -m tests.campaigns.native``.
"""

import json
import os
import pickle
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.experimental import serialize_executable
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

import jaxbn
from tests.campaigns.native.mutants import MUTANTS, NativeMutant
from tests.support.compare import assert_close, cotangents, pullback

ROOT = Path(__file__).parents[2]
CALL = "jaxbn_convolve"

pytestmark = pytest.mark.usefixtures("with_native_kernels")


@pytest.fixture
def with_native_kernels() -> None:
    """The tests run where jaxbn was installed with a C++ compiler. ``JAXBN_NATIVE=0`` leaves this file out."""
    assert jaxbn.native_kernels().available, jaxbn.native_kernels().why


def _normal(*shape: int, dtype: Any = float) -> jax.Array:
    return jnp.asarray(np.random.default_rng(sum(shape)).normal(size=shape), dtype)


X, KERNEL = _normal(8, 7, 6, 9), _normal(3, 2, 9, 12)


@pytest.mark.parametrize(
    ("x_shape", "kernel_shape", "options"),
    [
        ((2, 9, 11, 70), (3, 3, 70, 130), {"padding": "SAME"}),  # several panels of vectors, the last partly filled
        ((1, 3, 5, 64), (3, 3, 64, 128), {"padding": 1}),  # few pixels: the weights are read in the kernel itself
        ((3, 40, 37, 9), (5, 4, 9, 33), {"stride": (3, 2), "padding": 3}),  # several tiles with edges, several phases
        ((2, 300, 24), (40, 24, 20), {"dilation": 3, "padding": "SAME"}),  # more runs and terms than a chunk has
        ((1, 6, 7, 8, 96), (2, 3, 2, 3, 96), {"groups": 32, "padding": 1}),  # vectors over several groups
        ((2, 12, 13, 21), (9, 9, 1, 42), {"groups": 21, "padding": 4}),  # more terms than a block of offsets has
        ((5, 6, 7, 40), (1, 1, 40, 24), {"padding": 0}),  # all pixels are one row
        ((2, 5, 6, 16), (7, 3, 16, 8), {"padding": ((3, 3), (-1, -2)), "stride": (2, 9)}),  # cropped; stride > window
    ],
)
def test_large_and_odd_convolutions(x_shape: Any, kernel_shape: Any, options: dict[str, Any]) -> None:
    x, kernel = _normal(*x_shape), _normal(*kernel_shape)
    ours = partial(jaxbn.conv, algorithm="native", **options)
    plain = partial(jaxbn.reference.conv, **options)
    dy = cotangents([jax.eval_shape(plain, x, kernel)], 0)
    got, want = (
        jax.jit(lambda x, kernel, function=function: pullback(lambda *a: [function(*a)], (x, kernel), dy))(x, kernel)
        for function in (ours, plain)
    )
    assert_close(got, want, 1e-12)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_narrow_dtypes_are_summed_in_float32(dtype: Any) -> None:
    x, kernel = _normal(2, 6, 7, 40, dtype=dtype), _normal(3, 3, 40, 16, dtype=dtype)
    got = jaxbn.conv(x, kernel, algorithm="native")
    want = jaxbn.reference.conv(x.astype(float), kernel.astype(float))
    assert got.dtype == dtype
    np.testing.assert_allclose(np.asarray(got, float), want, rtol=2 * float(jnp.finfo(dtype).eps), atol=1e-4)


def test_the_table_chooses_them_and_the_options_do_not() -> None:
    def program(**options: Any) -> str:
        return jax.jit(partial(jaxbn.conv, **options)).lower(X, KERNEL).as_text()

    assert {choice.algorithm for choice in jaxbn.explain_conv(X, KERNEL, platform="cpu")} == {"native"}
    assert {choice.algorithm for choice in jaxbn.explain_conv(X, KERNEL, platform="cuda")} == {"dense"}
    assert CALL in program()
    assert CALL not in program(algorithm="dense")
    assert "native kernels: compiled for the instruction set" in str(jaxbn.native_kernels())


@pytest.mark.parametrize(
    ("x_shape", "kernel_shape", "options", "want"),
    [
        ((2, 8, 9, 16), (1, 1, 16, 12), {}, ("pointwise", "pointwise", "native")),
        ((2, 8, 9, 3), (3, 3, 3, 64), {}, ("native", "dense", "native")),
        ((2, 99, 3), (5, 3, 64), {"stride": 2}, ("native", "dense", "native")),
        ((2, 99, 3), (5, 3, 64), {}, ("native", "native", "native")),
        ((2, 8, 9, 3), (3, 3, 3, 16), {}, ("native", "native", "native")),
        ((2, 8, 8, 3), (2, 2, 3, 16), {"stride": 2}, ("native", "patches", "native")),
        ((2, 6, 7, 8, 3), (3, 3, 3, 3, 32), {}, ("native", "native", "native")),
        ((2, 8, 9, 4), (3, 3, 1, 4), {"groups": 4}, ("depthwise", "depthwise", "depthwise")),
    ],
)
def test_where_others_are_faster_they_are_not_chosen(x_shape: Any, kernel_shape: Any, options: Any, want: Any) -> None:
    x, kernel = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (x_shape, kernel_shape))
    explanation = jaxbn.explain_conv(x, kernel, platform="cpu", **options)
    assert tuple(choice.algorithm for choice in explanation) == want


@pytest.mark.parametrize("algorithm", [None, "native"])
def test_an_exported_program_does_not_have_them(algorithm: str | None) -> None:
    function = jax.jit(partial(jaxbn.conv, algorithm=algorithm))
    for platforms in (["cpu"], ["cpu", "cuda"]):
        exported = export.export(function, platforms=platforms)(X, KERNEL)
        assert CALL not in exported.mlir_module()
        assert_close(exported.call(X, KERNEL), function(X, KERNEL), 1e-12)
    batch, *sizes = export.symbolic_shape("b, 7, 6, 9")
    exported = export.export(function)(jax.ShapeDtypeStruct((batch, *sizes), X.dtype), KERNEL)
    assert_close(exported.call(X, KERNEL), function(X, KERNEL), 1e-12)


def test_on_several_devices_they_compute_one_device_s_part_under_shard_map() -> None:
    mesh = jax.make_mesh((2,), ("data",), (AxisType.Auto,))
    x = jax.device_put(X, NamedSharding(mesh, P("data")))
    want = jaxbn.conv(X, KERNEL)
    divided = jax.jit(jaxbn.conv)
    assert CALL not in divided.lower(x, KERNEL).as_text()
    assert_close(divided(x, KERNEL), want, 1e-12)
    mapped = jax.jit(jax.shard_map(jaxbn.conv, mesh=mesh, in_specs=(P("data"), P()), out_specs=P("data")))
    assert CALL in mapped.lower(x, KERNEL).as_text()
    assert_close(mapped(x, KERNEL), want, 1e-12)


def test_nan_and_infinity_reach_what_they_reach_in_the_reference() -> None:
    """Without padding, of which it is not defined whether its zeros are multiplied or left out."""
    x = X.at[1, 2, 3, 0].set(jnp.nan).at[5, 0, 0, 2].set(jnp.inf)
    options = {"stride": 2}
    (dy,) = cotangents([jax.eval_shape(partial(jaxbn.conv, **options), x, KERNEL)], 0)
    dy = dy.at[0, 0, 1, 4].set(jnp.nan).at[2, 2, 2, 0].set(-jnp.inf)
    got, want = (
        pullback(lambda *arrays, function=function: [function(*arrays, **options)], (x, KERNEL), [dy])
        for function in (partial(jaxbn.conv, algorithm="native"), jaxbn.reference.conv)
    )
    for ours, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert 0 < np.sum(~np.isfinite(theirs)) < theirs.size
        np.testing.assert_array_equal(np.isfinite(ours), np.isfinite(theirs))


PROGRAM = """
import hashlib, json
from concurrent.futures import ThreadPoolExecutor
import jax, jax.numpy as jnp, numpy as np, jaxbn
assert jaxbn.native_kernels().available

def network(x, kernel):
    def step(x, _):
        return jnp.sin(jaxbn.conv(x, kernel, padding="SAME")), None
    y, _ = jax.lax.scan(step, x, None, length=3)
    return jnp.sum(y ** 2)

rng = np.random.default_rng(0)
x = jnp.asarray(rng.normal(size=(3, 6, 12, 10, 24)), jnp.float32)
kernels = jnp.asarray(rng.normal(size=(3, 3, 3, 24, 24)) / 15, jnp.float32)
gradient = jax.jit(jax.vmap(jax.grad(network, (0, 1))))
with ThreadPoolExecutor(8) as callers:
    results = list(callers.map(lambda _: jax.device_get(gradient(x, kernels)), range(64)))
digests = {hashlib.sha256(b"".join(leaf.tobytes() for leaf in result)).hexdigest() for result in results}
print(json.dumps(sorted(digests)))
"""


def test_many_callers_get_the_same_bits_from_one_thread_and_from_two() -> None:
    """64 calls at once from 8 Python threads, of a gradient of a scan under vmap."""
    digests = []
    for threads in (1, 2):
        environment = os.environ | {"NPROC": str(threads), "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-c", PROGRAM]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        digests += json.loads(done.stdout)
    assert len(set(digests)) == 1


def test_a_call_with_another_dtype_is_refused() -> None:
    call = jax.ffi.ffi_call(CALL, (jax.ShapeDtypeStruct((1, 1, 1, 1, 1, 1), jnp.complex64),) * 2)
    with pytest.raises(jax.errors.JaxRuntimeError, match="jaxbn: the native kernels compute in float32 and float64"):
        call(*[jnp.ones((1,) * 6, jnp.complex64)] * 2, convolution=np.ones(23, np.int64))


def test_they_can_be_switched_off() -> None:
    program = """
import jax.numpy as jnp, jaxbn
print(jaxbn.native_kernels(), jaxbn.explain_conv(jnp.ones((2, 8, 9, 4)), jnp.ones((3, 3, 4, 6)), platform="cpu"))
try:
    jaxbn.conv(jnp.ones((2, 8, 9, 4)), jnp.ones((3, 3, 4, 6)), algorithm="native")
except ValueError as error:
    print(error)
"""
    environment = os.environ | {"JAXBN_NATIVE": "0"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.startswith("native kernels: switched off by JAXBN_NATIVE=0 convolve         dense"), done.stderr
    assert "`algorithm` is 'native', which does not apply to this convolution; 'dense' do" in done.stdout


def test_a_compiled_program_is_loaded_by_a_process_that_has_traced_nothing(tmp_path: Path) -> None:
    """Importing jaxbn registers the kernels, so that a serialised executable finds them."""
    serialised = serialize_executable.serialize(jax.jit(jaxbn.conv).lower(X, KERNEL).compile())
    (tmp_path / "program").write_bytes(pickle.dumps(serialised))
    np.savez(tmp_path / "arrays.npz", x=X, kernel=KERNEL)
    program = """
import pickle, jax, jaxbn, numpy as np
from jax.experimental import serialize_executable
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_num_cpu_devices", 8)
with open("program", "rb") as file, np.load("arrays.npz") as arrays:
    compiled = serialize_executable.deserialize_and_load(*pickle.load(file), execution_devices=jax.devices()[:1])
    np.save("y.npy", compiled(arrays["x"], arrays["kernel"]))
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert_close(np.load(tmp_path / "y.npy"), np.asarray(jaxbn.conv(X, KERNEL)), 0)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_mutant_s_text_is_in_the_kernels_once(mutant: NativeMutant) -> None:
    """`tests.campaigns.native` compiles and runs them, which takes minutes and a compiler."""
    assert (ROOT / "jaxbn" / "_native" / "src" / mutant.file).read_text().count(mutant.old) == 1
