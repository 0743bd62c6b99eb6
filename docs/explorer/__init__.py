"""One page on which the deck's sums can be touched: ``python -m docs.explorer`` writes ``docs/explorer.html``.

Point at an output, an input pixel or a kernel tap of a small convolution: the terms of D3, D5 or D7 light up, with
their sum beside what the hand-written rule gave. Move one value of a batch: the three terms of D16 follow. The page is
one file that needs no network; `docs.explorer.examples` computes its numbers, the files beside it draw them.
"""

import json
from pathlib import Path
from string import Template

from docs.explorer import examples

_HERE = Path(__file__).parent
_SCRIPTS = ("grids.js", "sums.js", "convolution.js", "batch_norm.js")  # each uses those before it


def page() -> str:
    """The page, always the same: its numbers are whole or rounded to four decimals."""
    numbers = {"convolution": examples.convolution(), "batch_norm": examples.batch_norm()}
    return Template(_read("page.html")).substitute(
        style=_read("page.css"),
        numbers=json.dumps(numbers, separators=(",", ":")),
        script="\n".join(map(_read, _SCRIPTS)),
    )


def _read(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
