"""What a check found, to be read in a terminal, by a program, or as a page."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import numpy as np

from jaxbn.testing.page import page

DETAILED = 3  # failures that are printed at length


@dataclass(frozen=True)
class Failure:
    """One thing that is wrong, at its worst.

    Attributes:
        check: What kind of check it is, such as ``"gradient"`` or ``"structure"``.
        message: What was found, in a sentence.
        argument: The array whose cotangent is wrong, as ``"params['kernel']"``; none where it is all of them.
        output: The output whose cotangent brings it to light; none where it is all of them together.
        cotangent: Which cotangent was sent back, such as ``"gaussian 3"``.
        transformation: Under which transformation, such as ``"vmap"``; none under none.
        index: The worst entry.
        got: What the rule gives there.
        want: What autodiff of the reference gives there in float64.
        error: How far off, in units of the cotangent's largest entry.
        budget: How far off rounding may be.
        cause: A guess.
        reproduce: Python that shows it.
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
            lines.append(f"  error      {self.error:.3g} of the cotangent's size, budget {self.budget:.3g}{times}")
        for name, text in (("cause", self.cause), ("reproduce", self.reproduce)):
            if text:
                lines.append(f"  {name:10} " + text.rstrip().replace("\n", "\n" + " " * 13))
        return "\n".join(lines)


@dataclass(frozen=True)
class VjpReport:
    """The outcome of `check_custom_vjp`; ``print`` it.

    Attributes:
        function: The name of what was checked.
        failures: What is wrong, the most telling first; empty if nothing is.
        checked: What was checked, and how much of it.
        unchecked: What was not, and why.
        inputs: The arrays that were differentiated, with their types.
        seconds: How long it took.
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
        """The guesses, each once."""
        return tuple(dict.fromkeys(failure.cause for failure in self.failures if failure.cause))

    def __str__(self) -> str:
        outcome = "passed" if self.passed else f"FAILED, {_count(self.failures)}"
        lines = [f"check_custom_vjp of {self.function}({', '.join(self.inputs)}): {outcome}"]
        for failure in self.failures[:DETAILED]:
            lines += ["", str(failure)]
        rest = self.failures[DETAILED:]
        if rest:
            lines += ["", f"and {len(rest)} more:"]
            lines += [f"  {each.check}: {each.message}" for each in rest[:12]]
            lines += [f"  ... {len(rest) - 12} of them not shown; see `failures`"] if len(rest) > 12 else []
        lines += ["", "checked: " + "; ".join(self.checked)]
        if self.unchecked:
            lines += ["not checked:"] + [f"  {what}: {_first_line(why)}" for what, why in self.unchecked]
        return "\n".join([*lines, f"({self.seconds:.1f} s)"])

    def to_json(self) -> str:
        """The report as a JSON object; numbers that JSON does not have, such as NaN, are strings."""
        failures = [
            {name: _plain(value) for name, value in vars(failure).items() if name != "arrays"}
            for failure in self.failures
        ]
        content = {name: _plain(value) for name, value in vars(self).items() if name != "failures"}
        return json.dumps({"passed": self.passed, **content, "failures": failures}, indent=2, allow_nan=False)

    def to_html(self, path: str | PathLike[str]) -> None:
        """Writes a page that needs nothing else: the report, and heat maps of got, wanted and their difference."""
        with open(path, "w", encoding="utf-8") as file:
            file.write(page(self))


class VjpMismatch(AssertionError):
    """The rule is wrong; ``report`` says how, and so does the message."""

    def __init__(self, report: VjpReport) -> None:
        super().__init__(f"\n{report}")
        self.report = report

    def __reduce__(self) -> Any:  # as pytest-xdist sends it from one process to another
        return VjpMismatch, (self.report,)


def _count(failures: Sequence[Failure]) -> str:
    return "1 failure" if len(failures) == 1 else f"{len(failures)} failures"


def _first_line(text: str) -> str:
    line = text.strip().splitlines()[0] if text.strip() else text
    return line if len(line) <= 200 else line[:197] + "..."


def _plain(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, float) and not np.isfinite(value) else value
