"""The check as a whole: what is looked at, in which order, and where it stops."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax

from jaxbn.testing import transformations as under
from jaxbn.testing.collector import IMPURE, Collector, Progress
from jaxbn.testing.cotangents import FAMILIES, gaussian
from jaxbn.testing.derivatives import DERIVATIVES, SECOND_ORDER, check_derivatives
from jaxbn.testing.diagnosis import cause_of_exception, explained
from jaxbn.testing.gradients import Truth, check_determinism, check_gradients, check_linearity, check_zero
from jaxbn.testing.isolation import check_isolation
from jaxbn.testing.oracle import Sides, pullback
from jaxbn.testing.precision import Trial
from jaxbn.testing.problem import Problem, problem_of
from jaxbn.testing.purity import check_purity
from jaxbn.testing.report import Failure, VjpMismatch, VjpReport
from jaxbn.testing.structure import check_structure
from jaxbn.testing.taylor import check_reference
from jaxbn.testing.values import check_values, check_values_under_differentiation, with_outputs

TRANSFORMATIONS = (
    "jit",
    "vmap",
    "vmap of the pullback",
    "scan",
    "checkpoint",
    "devices",
    "jvp",
    "grad of grad",
    "jvp of grad",
)


RAISES = "y, vjp = jax.vjp(fn, *args)  # fn and args as they were given\nvjp(jax.tree.map(jnp.ones_like, y))"


def check_custom_vjp(
    fn: Callable[..., Any],
    reference: Callable[..., Any],
    *args: Any,
    argnums: int | Sequence[int] | None = None,
    order: int = 2,
    transforms: str | Iterable[str] = "all",
    cotangents: str | Iterable[str] = "all",
    seed: int = 0,
    raise_on_failure: bool = True,
) -> VjpReport:
    """Checks the derivative that ``fn`` was given by hand against autodiff of ``reference``, the same forward without.

    The truth is ``jax.vjp(reference)`` in float64, whatever precision is set. For each argument the worst error of
    ``fn``'s gradient, over many cotangents each of size one, may be four times that of autodiff in the arguments' own
    dtype, or rounding: ``max(4 · worst(autodiff), 8 · eps · √N · S)``, where N is the number of outputs and S the
    largest gradient. There is no tolerance to tune.

    Checked as well: the reference itself, by its Taylor expansion; the values, as far as rounding settles them; shapes,
    dtypes, weak types; that zero gives zero, that the rule is linear in cotangents of every size, that NaN does not
    spread, that two runs agree, that the rule keeps nothing outside of its residuals; and the transformations. At a
    kink of the reference the rule must give what autodiff gives, and the report says that there is one.

    Args:
        fn: A function of arrays and trees of arrays, with a rule such as `jax.custom_vjp`'s; any JAX function will do.
            To check it on several devices or with an axis name, give ``jax.shard_map(fn, …)`` or a ``jax.vmap`` of it.
        reference: The same function without the rule; it must compute in the dtype of its arguments.
        *args: What both are called with. Arrays are differentiated if they are floating; Python's numbers, strings and
            ``None`` are static.
        argnums: Which arguments to differentiate in, as in `jax.grad`; ``None`` is all that have floating arrays.
        order: 1 leaves out derivatives of derivatives.
        transforms: ``"all"``, or some of ``"jit"``, ``"vmap"``, ``"vmap of the pullback"``, ``"scan"``,
            ``"checkpoint"``, ``"devices"``, ``"jvp"``, ``"grad of grad"``, ``"jvp of grad"``. One that ``fn`` does not
            support is reported, and fails the check only if it is named here.
        cotangents: ``"all"``, or some of ``"gaussian"``, ``"constant"``, ``"y"``, ``"y+1"``, ``"one-hot"``,
            ``"alternating"``, ``"each output alone"``, ``"zero"``, ``"linearity"``.
        seed: Of everything random.
        raise_on_failure: Whether to raise `VjpMismatch` rather than return a report of failures.

    Returns:
        A `VjpReport`: print it, or write it with ``to_json()`` or ``to_html(path)``.

    Raises:
        VjpMismatch: The derivative is wrong; it is an ``AssertionError`` whose message is the report.
        TypeError: An argument is complex, or an option is of the wrong type.
        ValueError: There is nothing to differentiate, an argument has a NaN, ``reference`` is not the same function, or
            no entry of its gradient is finite.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> square = jax.custom_vjp(lambda x: x * x)
        >>> square.defvjp(lambda x: (x * x, x), lambda x, dy: (x * dy,))  # it should be 2 * x * dy
        >>> report = check_custom_vjp(square, lambda x: x * x, jnp.arange(5.0), raise_on_failure=False)
        >>> report.passed, report.causes
        (False, ('a constant factor: got is 0.5 (1/2) times what is wanted',))

    References:
        Deck, D17: it is for whoever adds a layer with a derivative of its own.
    """
    if isinstance(order, bool) or order not in (1, 2):
        raise ValueError(f"check_custom_vjp: `order` is {order!r}; it must be 1 or 2")
    names = _chosen("transforms", transforms, TRANSFORMATIONS)
    families = _chosen("cotangents", cotangents, FAMILIES)
    named = frozenset(names) if transforms != "all" else frozenset()
    problem = with_outputs(problem_of(fn, reference, args, argnums))
    progress = Progress(_name(fn))
    collector = Collector(problem, progress, named)
    try:
        _check(collector, order, names, families, seed)
    finally:
        progress.done()
    report = VjpReport(
        function=_name(fn),
        failures=tuple(collector.failures),
        checked=tuple(collector.checked),
        unchecked=tuple(collector.unchecked),
        inputs=tuple(f"{leaf.name}: {leaf.dtype}{list(leaf.shape)}" for leaf in problem.inputs),
        seconds=progress.seconds,
    )
    if raise_on_failure and not report.passed:
        raise VjpMismatch(report)
    return report


def _check(collector: Collector, order: int, names: Sequence[str], families: Sequence[str], seed: int) -> None:
    problem = collector.problem
    jit = _compiles(problem, seed)
    truth = Truth(Sides(problem, pullback, jit=jit), problem.inputs)
    outputs, budgets = check_values(problem, truth.sides, jit=jit)
    if not _runs(collector, truth.sides, seed):
        return
    check_reference(collector, truth, seed)
    if collector.failures:
        collector.unchecked.append(("the rule", "what it would be compared with is wrong"))
        return
    check_structure(collector, seed, jit=jit)
    dy = gaussian(problem.outputs, seed, 0).arrays
    check_values_under_differentiation(collector, truth.sides.rule(problem.arrays, dy)[0], outputs, budgets)
    trials = check_gradients(collector, truth, outputs, families, seed)
    if "zero" in families:
        check_zero(collector, truth)
    if "linearity" in families:
        check_linearity(collector, truth, trials, seed)
    check_determinism(collector, truth, seed)
    check_isolation(collector, truth, seed)
    if not collector.failures:  # any other mistake would be found again, and be taken for this one
        check_purity(collector, truth, trials, seed, jit=jit)
        collector.checked.append("nothing is kept outside of the residuals")
    was_right = not collector.failures
    if collector.failures:  # most of what would fail under them would fail of that
        left_out = [name for name in names if not collector.asked_for(name)]
        names = [name for name in names if collector.asked_for(name)]
        if left_out:
            collector.unchecked.append((", ".join(left_out), "it is wrong without them"))
    for name in names:
        _check_transformation(collector, truth, name, trials, seed, jit=jit)
    second = [name for name in names if name in SECOND_ORDER]
    if second and order == 2:
        check_derivatives(collector, second, seed, jit=jit)
    elif second:
        collector.unchecked.append((", ".join(second), "order=1"))
    if was_right and collector.failures:  # what is wrong now may depend on how often the rule was traced
        check_purity(collector, truth, trials, seed, jit=jit)
    collector.progress("the cause")
    collector.failures[:] = explained(collector.failures, problem, truth, trials, seed)


def _compiles(problem: Problem, seed: int) -> bool:
    """Whether neither pass decides on values; what else may be wrong with them is not the question here."""
    dy = gaussian(problem.outputs, seed, 0).arrays
    try:
        jax.eval_shape(pullback(problem.view(problem.fn)), problem.arrays, dy)
    except Exception as error:  # any other is for `_runs` to tell
        return not isinstance(error, jax.errors.ConcretizationTypeError)
    return True


def _runs(collector: Collector, sides: Sides, seed: int) -> bool:
    """Whether the backward pass runs at all; all else is idle if it does not."""
    problem = collector.problem
    try:
        sides.rule(problem.arrays, gaussian(problem.outputs, seed, 0).arrays)
    except Exception as error:
        message = f"the backward pass raises {type(error).__name__}: {error}"
        cause = IMPURE if isinstance(error, jax.errors.UnexpectedTracerError) else cause_of_exception(str(error))
        collector.failures.append(Failure("raises", message, cause=cause, reproduce=RAISES))
        return False
    return True


def _check_transformation(
    collector: Collector, truth: Truth, name: str, trials: Sequence[Trial], seed: int, *, jit: bool
) -> None:
    if name in SECOND_ORDER:
        return  # they are checked together
    if name in DERIVATIVES:
        check_derivatives(collector, [name], seed, jit=jit)
    elif name == "devices" and len(jax.devices()) < 2:
        collector.unchecked.append((name, "there is only one; jax_num_cpu_devices gives several"))
    else:
        runs = _runs_of(name, collector, seed, jit=jit)
        under.check_transformation(collector, truth, name, runs, trials)


def _runs_of(
    name: str, collector: Collector, seed: int, *, jit: bool
) -> Iterator[tuple[str, under.Run, list[under.Member]]]:
    problem = collector.problem
    everything = range(len(problem.inputs))
    same = under.scaled(collector, seed, ())
    if name == "jit":
        # All else was compiled, if it could be.
        yield "(not compiled)" if jit else "", under.run_eager if jit else under.run_compiled, same[:1]
    elif name == "vmap":
        for position, places in problem.arguments.items():
            label = problem.inputs[places[0]].name if len(places) == 1 else f"argument {position}"
            yield f"over `{label}`", under.run_vmap_over(places), under.scaled(collector, seed, places)
    elif name == "vmap of the pullback":
        yield "", under.run_vmap_of_pullback, same
    elif name == "scan":
        yield "", under.run_scan, under.scaled(collector, seed, everything)
    elif name == "checkpoint":
        yield "", under.run_checkpoint, same[:1]
    elif name == "devices":
        yield "(two)", under.run_sharded, same[:1]


def _chosen(option: str, value: Any, known: tuple[str, ...]) -> tuple[str, ...]:
    if isinstance(value, str):
        value = known if value == "all" else (value,)
    try:
        names = tuple(value)
    except TypeError:
        raise TypeError(f"check_custom_vjp: `{option}` is {value!r}; it must be 'all' or names") from None
    for name in names:
        if name not in known:
            raise ValueError(f"check_custom_vjp: `{option}` has {name!r}; known are {', '.join(map(repr, known))}")
    return names


def _name(fn: Any) -> str:
    while not hasattr(fn, "__name__") and hasattr(fn, "func"):  # functools.partial
        fn = fn.func
    return getattr(fn, "__name__", type(fn).__name__)
