"""Below float64 a rule must be as precise as autodiff of the reference in the same dtype.

The precision rule of the design: for each argument, pooled over the cotangents and each divided by its ‖dy‖∞, the
worst error against float64 is at most four times autodiff's, or the floor 8 · eps · √N · S, with S the largest
‖want‖∞ / ‖dy‖∞ and N the size of dy.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxbn
from tests.support.cases import Case
from tests.support.compare import jitted_pullback, true_pullback
from tests.support.compiled import compiled_without_effort

DTYPES = [jnp.float32, jnp.bfloat16, jnp.float16]
GAUSSIAN_COTANGENTS = 16


def all_cotangents(outputs: list[Any], dtype: Any) -> list[list[np.ndarray]]:
    """Sixteen normal ones, and what is special: constant, y itself, y + 1, one-hot, alternating."""
    generator = np.random.default_rng(0)
    normal = [[generator.normal(size=y.shape) for y in outputs] for _ in range(GAUSSIAN_COTANGENTS)]
    one_hot = [np.zeros(y.shape) for y in outputs]
    for each in one_hot:
        each.flat[each.size // 2] = 1.0
    special = [
        [np.ones(y.shape) for y in outputs],
        [np.asarray(y) for y in outputs],
        [np.asarray(y) + 1 for y in outputs],
        one_hot,
        [np.resize([1.0, -1.0], y.shape) for y in outputs],
    ]
    return [[each.astype(dtype) for each in dy] for dy in normal + special]


def facts(pair: tuple[Case, Any]) -> list[Any]:
    """For a sample: the operation, the dtype, whether sums are long, and what is summed apart or left out."""
    case, dtype = pair
    is_large = math.prod(case.shapes["x"] or ()) > 1000
    return [case.operation, dtype, (case.operation, is_large), case.options.get("groups"), "where" in case.options]


def rounded(arrays: list[Any], dtype: Any) -> list[np.ndarray]:
    return [np.asarray(array).astype(dtype) for array in arrays]


def flat(outputs: list[jax.Array]) -> np.ndarray:
    return np.concatenate([np.ravel(np.asarray(y, np.float64)) for y in outputs])


def assert_outputs_precise(ours: np.ndarray, autodiff: np.ndarray, exact: np.ndarray, dtype: Any) -> None:
    """The forward by the same measure: no worse than four times plain JAX's, or rounding."""
    worst_ours, worst_plain = (np.max(np.abs(y - exact)) for y in (ours, autodiff))
    assert worst_ours <= max(4 * worst_plain, float(jnp.finfo(dtype).eps) * np.max(np.abs(exact)))


def assert_precise(case: Case, dtype: Any) -> None:
    """The precision rule, for the value too."""
    low = case.arrays(dtype=dtype)
    exact = rounded(low, jnp.float64)
    truth = true_pullback(case.function(jaxbn.reference))
    ours, autodiff = (jitted_pullback(case.function(module)) for module in (jaxbn, jaxbn.reference))
    out_dtypes = [y.dtype for y in jax.eval_shape(case.function(jaxbn), *low)]

    worst = {"ours": np.zeros(len(low)), "autodiff": np.zeros(len(low))}
    largest = np.zeros(len(low))
    with compiled_without_effort():  # one operation after the other
        outputs = case.function(jaxbn.reference)(*exact)
        plain = case.function(jaxbn.reference)(*low)
        assert_outputs_precise(flat(case.function(jaxbn)(*low)), flat(plain), flat(outputs), dtype)
    for dy in all_cotangents(outputs, dtype):
        scale = max(float(np.max(np.abs(each.astype(np.float64)))) for each in dy)
        _, wanted = truth(exact, rounded(dy, jnp.float64))
        sent = [each.astype(out_dtype) for each, out_dtype in zip(dy, out_dtypes, strict=True)]
        for name, function in (("ours", ours), ("autodiff", autodiff)):
            _, got = function(low, sent)
            errors = [np.max(np.abs(np.asarray(g, np.float64) - w)) / scale for g, w in zip(got, wanted, strict=True)]
            worst[name] = np.maximum(worst[name], errors)
        largest = np.maximum(largest, [np.max(np.abs(w)) / scale for w in wanted])

    size = sum(y.size for y in outputs)
    budget = np.maximum(4 * worst["autodiff"], 8 * float(jnp.finfo(dtype).eps) * np.sqrt(size) * largest)
    assert np.all(worst["ours"] <= budget), dict(zip(case.names, zip(worst["ours"], budget, strict=True), strict=True))


def assert_cotangents_have_their_primals_dtypes(case: Case, dtype: Any) -> None:
    """The vectors beside ``x`` in other dtypes than its own, as float32 parameters beside bfloat16 images."""
    others = {"gamma": jnp.float32, "beta": jnp.float64, "bias": jnp.float32, "mean": jnp.bfloat16, "var": jnp.float32}
    arrays = [
        jax.ShapeDtypeStruct(array.shape, others.get(name, dtype))
        for name, array in zip(case.names, case.arrays(), strict=True)
    ]

    def with_gradients(*arrays: jax.Array) -> Any:
        outputs, vjp = jax.vjp(case.function(jaxbn), *arrays)
        return outputs, vjp([jnp.ones_like(y) for y in outputs])

    outputs, gradients = jax.eval_shape(with_gradients, *arrays)
    assert outputs[0].dtype == dtype
    assert all(moment.dtype == jnp.promote_types(dtype, dtype) or moment.dtype == jnp.float32 for moment in outputs[1:])
    assert [each.dtype for each in gradients] == [each.dtype for each in arrays]
