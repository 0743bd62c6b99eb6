"""The report of a check: as text for a terminal, as JSON, and as an HTML page."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import numpy as np

from jaxbn.testing.page import page

DETAILED = 3
"""At most this many failures are printed in full. The others are printed on one line each."""

BRIEF = 12
"""At most this many of those lines are printed."""


@dataclass(frozen=True)
class Failure:
    """A check that failed, with its worst entry.

    Attributes:
        check: The kind of check, such as ``"gradient"`` or ``"structure"``.
        message: A sentence that says what is wrong.
        argument: The array whose cotangent or tangent is wrong, such as ``"params['kernel']"``, or None if it is not
            one array.
        output: The only output whose cotangent was not zero, or None if there were several.
        cotangent: The outputs' cotangent with the largest error, such as ``"gaussian 3"``.
        transformation: The transformation under which the failure occurred, such as ``"vmap"``, or None.
        index: The index of the worst entry.
        got: The rule's value there.
        want: The reference's value there, in float64.
        error: The error there, relative to the cotangent's largest entry.
        budget: The largest error that rounding explains.
        cause: A guess at the cause.
        reproduce: Python code that reproduces the failure.
        arrays: The rule's gradient and the right one, if ``check`` is ``"gradient"`` without a transformation.
    """

    check: str
    message: str
    argument: str | None = None
    output: str | None = None
    cotangent: str | None = None
    transformation: str | None = None
    index: tuple[int, ...] | None = None
    got: float | None = None
    want: float | None = None
    error: float | None = None
    budget: float | None = None
    cause: str | None = None
    reproduce: str | None = None
    arrays: tuple[np.ndarray, np.ndarray] | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        lines = [f"{self.check}: {self.message}"]
        if self.index is not None:
            place = f"{self.argument or self.output}[{', '.join(map(str, self.index))}]"
            lines.append(f"  worst at   {place}: got {self.got:.6g}, wanted {self.want:.6g}")
        if self.error is not None and self.budget is not None:
            times = f", {self.error / self.budget:.3g} times" if self.budget > 0 else ""
            kind = "tangent" if self.check == "directional derivative" else "cotangent"
            lines.append(f"  error      {self.error:.3g} of the {kind}'s size, budget {self.budget:.3g}{times}")
        for name, text in (("cause", self.cause), ("reproduce", self.reproduce)):
            if text:
                lines.append(f"  {name:10} " + text.rstrip().replace("\n", "\n" + " " * 13))
        return "\n".join(lines)


@dataclass(frozen=True)
class VjpReport:
    """The outcome of `check_custom_vjp`. ``print`` shows it as text.

    Attributes:
        function: The name of the function that was checked.
        failures: The checks that failed, in the order in which they ran; empty if none did.
        checked: The checks that were made.
        unchecked: The checks that could not be made, or not completely, with the reasons.
        inputs: The arrays that were differentiated, with their types.
        seconds: How long the checks took.
    """

    function: str
    failures: tuple[Failure, ...]
    checked: tuple[str, ...]
    unchecked: tuple[tuple[str, str], ...]
    inputs: tuple[str, ...]
    seconds: float

    @property
    def passed(self) -> bool:
        return not self.failures

    @property
    def causes(self) -> tuple[str, ...]:
        """The guesses at the causes, without repetitions."""
        return tuple(dict.fromkeys(failure.cause for failure in self.failures if failure.cause))

    def __str__(self) -> str:
        outcome = "passed" if self.passed else f"FAILED, {_count(self.failures)}"
        lines = [f"check_custom_vjp of {self.function}({', '.join(self.inputs)}): {outcome}"]
        for failure in self.failures[:DETAILED]:
            lines += ["", str(failure)]
        rest = self.failures[DETAILED:]
        if rest:
            lines += ["", f"and {len(rest)} more:"]
            lines += [f"  {failure.check}: {failure.message}" for failure in rest[:BRIEF]]
            hidden = len(rest) - BRIEF
            lines += [f"  ... {hidden} of them not shown; see `failures`"] if hidden > 0 else []
        lines += ["", "checked: " + "; ".join(self.checked)]
        if self.unchecked:
            lines += ["not checked:"] + [f"  {check}: {_first_line(why)}" for check, why in self.unchecked]
        return "\n".join([*lines, f"({self.seconds:.1f} s)"])

    def to_json(self) -> str:
        """Returns the report as a JSON object. Numbers that JSON cannot express, such as NaN, are strings."""
        failures = [
            {name: _for_json(value) for name, value in vars(failure).items() if name != "arrays"}
            for failure in self.failures
        ]
        content = {name: _for_json(value) for name, value in vars(self).items() if name != "failures"}
        return json.dumps({"passed": self.passed, **content, "failures": failures}, indent=2, allow_nan=False)

    def to_html(self, path: str | PathLike[str]) -> None:
        """Writes a self-contained HTML page: the report, and heat maps of got, wanted and their difference."""
        with open(path, "w", encoding="utf-8") as file:
            file.write(page(self))


class VjpMismatch(AssertionError):
    """Raised if a check fails. Its message is the report, which is also the attribute ``report``."""

    def __init__(self, report: VjpReport) -> None:
        super().__init__(f"\n{report}")
        self.report = report

    def __reduce__(self) -> Any:  # pytest-xdist pickles exceptions
        return VjpMismatch, (self.report,)


def _count(failures: Sequence[Failure]) -> str:
    return "1 failure" if len(failures) == 1 else f"{len(failures)} failures"


def _first_line(text: str) -> str:
    line = text.strip().splitlines()[0] if text.strip() else text
    return line if len(line) <= 200 else line[:197] + "..."


def _for_json(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return [_for_json(element) for element in value]
    return str(value) if isinstance(value, float) and not np.isfinite(value) else value
