"""The public function `check_custom_vjp`. It skips checks that an earlier failure makes meaningless."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax

from jaxbn.testing.collector import IMPURE, Collector, Progress
from jaxbn.testing.cotangents import FAMILIES, gaussian
from jaxbn.testing.derivatives import DERIVATIVES, SECOND_ORDER, check_derivatives, check_jvp, has_forward_mode
from jaxbn.testing.diagnosis import cause_of_exception, explain
from jaxbn.testing.gradients import check_determinism, check_gradients, check_linearity, check_zero
from jaxbn.testing.isolation import check_isolation
from jaxbn.testing.oracle import Evaluator, pullback
from jaxbn.testing.precision import Trial
from jaxbn.testing.problem import Problem, make_problem
from jaxbn.testing.purity import check_purity
from jaxbn.testing.report import Failure, VjpMismatch, VjpReport
from jaxbn.testing.scoring import Scorer
from jaxbn.testing.structure import check_structure
from jaxbn.testing.taylor import check_reference
from jaxbn.testing.transformations import check_transformation
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

CALL_PULLBACK = (
    "y, vjp = jax.vjp(fn, *args)  # fn and args are those given to check_custom_vjp\n"
    "vjp(jax.tree.map(jnp.ones_like, y))"
)


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
    """Checks a function's derivative rule against autodiff of ``reference``, the same function without the rule.

    The gradient of ``fn`` is compared with ``jax.vjp(reference)`` in float64, whatever JAX's settings, for many
    cotangents. There is no tolerance to set: for each argument the largest error, relative to the cotangent's largest
    entry, may be ``max(4 · A, 8 · eps · √N · S)``, where A is autodiff's largest error in the arguments' dtypes, N the
    number of output entries, and S the largest gradient entry.

    The other checks are:

    - the reference, by its Taylor expansion;
    - the values of ``fn``, as far as rounding allows;
    - the shape, dtype and weak type of each cotangent;
    - that the rule gives zero for zero, is linear for cotangents of every size, and gives the same bits twice;
    - that a NaN spreads no further than in the reference;
    - that the backward pass depends only on its residuals and its cotangent;
    - the rule under JAX's transformations, and second derivatives;
    - tangents, if ``fn`` has forward mode. If its `jvp` is not the transpose of its `vjp`, the report says for which
      argument, and which of the two is wrong.

    At a kink, which the report mentions, ``fn`` must have the gradient that autodiff gives there.

    Args:
        fn: A function of arrays and pytrees of arrays, usually with a rule such as `jax.custom_vjp`'s. For several
            devices or an axis name, pass ``jax.shard_map(fn, …)`` or a ``jax.vmap`` of it.
        reference: The same function without the rule. It must compute in the dtype of its arguments.
        *args: The arguments of both. Floating-point arrays are differentiated; Python numbers, strings and ``None``
            are static.
        argnums: The arguments to differentiate, as in `jax.grad`; ``None`` for all that have floating-point arrays.
        order: 2 to check second derivatives too, or 1.
        transforms: ``"all"``, or some of ``"jit"``, ``"vmap"``, ``"vmap of the pullback"``, ``"scan"``,
            ``"checkpoint"``, ``"devices"``, ``"jvp"``, ``"grad of grad"``, ``"jvp of grad"``. The report lists those
            that ``fn`` does not support. They fail the check only if they are named here.
        cotangents: ``"all"``, or some of ``"gaussian"``, ``"constant"``, ``"y"``, ``"y+1"``, ``"one-hot"``,
            ``"alternating"``, ``"each output alone"``, ``"zero"``, ``"linearity"``.
        seed: Seed for all random numbers.
        raise_on_failure: Whether to raise `VjpMismatch` if a check fails, or only to return the report.

    Returns:
        A `VjpReport`: print it, or write it with ``to_json()`` or ``to_html(path)``.

    Raises:
        VjpMismatch: The derivative is wrong. It is an ``AssertionError`` whose message is the report.
        TypeError: An argument is complex, or an option has the wrong type.
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
        Deck, D17: a layer that is added to an existing model needs a derivative.
    """
    if isinstance(order, bool) or order not in (1, 2):
        raise ValueError(f"check_custom_vjp: `order` is {order!r}; it must be 1 or 2")
    transformations = _chosen("transforms", transforms, TRANSFORMATIONS)
    families = _chosen("cotangents", cotangents, FAMILIES)
    requested = frozenset(transformations) if transforms != "all" else frozenset()
    problem = with_outputs(make_problem(fn, reference, args, argnums))
    progress = Progress(_name(fn))
    collector = Collector(problem, progress, requested)
    try:
        _run_checks(collector, order, transformations, families, seed)
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


def _run_checks(
    collector: Collector, order: int, transformations: Sequence[str], families: Sequence[str], seed: int
) -> None:
    problem = collector.problem
    jit = _can_be_traced(problem, seed)
    scorer = Scorer(Evaluator(problem, pullback, jit=jit), problem.inputs)
    outputs, budgets = check_values(problem, scorer.evaluator, jit=jit)
    if not _backward_pass_runs(collector, scorer.evaluator, seed):
        return
    check_reference(collector, scorer, seed)
    if collector.failures:
        collector.unchecked.append(("the rule", "the reference that it would be compared with is wrong"))
        return
    check_structure(collector, seed, jit=jit)
    dy = gaussian(problem.outputs, seed, 0).arrays
    outputs_of_rule = scorer.evaluator.rule(problem.arrays, dy)[0]
    check_values_under_differentiation(collector, outputs_of_rule, outputs, budgets)
    trials = check_gradients(collector, scorer, outputs, families, seed)
    if "zero" in families:
        check_zero(collector, scorer)
    if "linearity" in families:
        check_linearity(collector, scorer, trials, seed)
    check_determinism(collector, scorer, seed)
    check_isolation(collector, scorer, seed)
    if not collector.failures:  # `check_purity` would report any other mistake as impurity
        check_purity(collector, scorer, trials, seed, jit=jit)
        collector.checked.append("nothing is kept outside of the residuals")
    right_before = not collector.failures
    _check_transformations(collector, scorer, trials, order, transformations, seed, jit=jit)
    if right_before and collector.failures:  # the result may depend on the number of traces
        check_purity(collector, scorer, trials, seed, jit=jit)
    collector.progress("the cause")
    collector.failures[:] = explain(collector.failures, problem, scorer.evaluator, trials, seed)


def _can_be_traced(problem: Problem, seed: int) -> bool:
    """Whether the rule can be compiled, which it cannot if its Python code branches on values."""
    dy = gaussian(problem.outputs, seed, 0).arrays
    try:
        jax.eval_shape(pullback(problem.flattened(problem.fn)), problem.arrays, dy)
    except Exception as error:  # `_backward_pass_runs` reports all other exceptions
        return not isinstance(error, jax.errors.ConcretizationTypeError)
    return True


def _backward_pass_runs(collector: Collector, evaluator: Evaluator, seed: int) -> bool:
    problem = collector.problem
    try:
        evaluator.rule(problem.arrays, gaussian(problem.outputs, seed, 0).arrays)
    except Exception as error:
        message = f"the backward pass raises {type(error).__name__}: {error}"
        cause = IMPURE if isinstance(error, jax.errors.UnexpectedTracerError) else cause_of_exception(str(error))
        collector.failures.append(Failure("raises", message, cause=cause, reproduce=CALL_PULLBACK))
        return False
    return True


def _check_transformations(
    collector: Collector,
    scorer: Scorer,
    trials: Sequence[Trial],
    order: int,
    names: Sequence[str],
    seed: int,
    *,
    jit: bool,
) -> None:
    problem = collector.problem
    if collector.failures:  # a rule that is wrong without a transformation is wrong under nearly all of them
        # Forward mode is compared with reverse mode, which says more about the mistake.
        kept = collector.requested | ({"jvp"} if "jvp" in names and has_forward_mode(problem) else set())
        left_out = [name for name in names if name not in kept]
        names = [name for name in names if name in kept]
        if left_out:
            collector.unchecked.append((", ".join(left_out), "the rule is already wrong without them"))
    for name in names:
        if name == "devices" and len(jax.devices()) < 2:
            why = "there is only one device; the option jax_num_cpu_devices gives several"
            collector.unchecked.append((name, why))
        elif name not in DERIVATIVES:
            check_transformation(collector, scorer, name, trials, seed, jit=jit)
        elif name not in SECOND_ORDER:
            check_jvp(collector, scorer, seed, jit=jit)
    second_order = [name for name in names if name in SECOND_ORDER]
    if second_order and order == 2:
        check_derivatives(collector, second_order, seed, jit=jit)
    elif second_order:
        collector.unchecked.append((", ".join(second_order), "order=1"))


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
