"""Generates ``docs/explorer.html``, an interactive page of the deck's sums: run ``python -m docs.explorer``.

When the reader points at an output, an input pixel or a kernel tap of a small convolution, the page highlights the
terms of D3, D5 or D7 and compares their sum with the result of the hand-written rule. A slider changes one value of a
batch, and the page shows the three terms of D16. The page is one file and works offline. `docs.explorer.examples`
computes its numbers, and the JavaScript files in this folder draw them.
"""

import json
from pathlib import Path
from string import Template

from docs.explorer import examples

_HERE = Path(__file__).parent
_SCRIPTS = ("grids.js", "sums.js", "convolution.js", "batch_norm.js")  # each file uses the ones before it


def page() -> str:
    """The text of the page. It is the same on every machine, because its numbers are integers or rounded."""
    numbers = {"convolution": examples.convolution(), "batch_norm": examples.batch_norm()}
    return Template(_read("page.html")).substitute(
        style=_read("page.css"),
        numbers=json.dumps(numbers, separators=(",", ":")),
        script="\n".join(map(_read, _SCRIPTS)),
    )


def _read(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
