"""The parts of the site's build that Sphinx does not bring: docstrings, links that GitHub and the site share, formulas.

A docstring's formula is an indented block after a blank line, without ``::``. `mark_blocks` makes it a literal block.
A reference such as ``Deck, D5`` leads to the section of the derivation.
Links in Markdown lead to files, as on GitHub. `redirect_links` makes them lead to pages where the site has one.
Formulas are written as MathML, which browsers show without a script.
"""

import ast
import inspect
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from textwrap import dedent
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx import addnodes
from sphinx.transforms import SphinxTransform
from sphinx.util.inspect import stringify_signature

import jaxbn

DOCS = Path(__file__).parent
PAGES = {  # files of the repository that a page of the site includes
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "organisation.md",
    "README.md": "index.md",
    "examples/trainer/README.md": "trainer.md",
}
SECTION = re.compile(r"(Args|Attributes|Returns|Raises|Yields|Example|Examples|References|Note):$")
LINK = re.compile(r"\[((?:[^][]|\[[^][]*\])*)\]\(([^()\s#]+)(#[^()\s]*)?\)")


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", _process_docstring, priority=400)  # before napoleon's, of 500
    app.connect("autodoc-process-signature", _process_signature)
    app.connect("source-read", _read_page)
    app.connect("include-read", _read_include)
    app.add_transform(LinkNames)
    app.add_transform(StripBlankLines)
    app.connect("viewcode-follow-imported", _follow_import)
    app.add_html_math_renderer("mathml", (_write_inline_math, None), (_write_math_block, None))


def _process_docstring(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = [_link_formulas(line) for line in mark_blocks(lines)]


def _link_formulas(line: str) -> str:
    """Links the formulas of a line such as ``Deck, D5`` to the sections of the derivation that explain them."""
    if not line.strip().startswith("Deck, "):
        return line
    return re.sub(r"\bD\d+\b", lambda match: f"`{match[0]} <../derivation.html#{formula_anchors()[match[0]]}>`__", line)


@cache
def formula_anchors() -> dict[str, str]:
    """For each of the deck's formulas the anchor of the first section of the derivation that names it."""
    prose = re.sub(r"^```.*?^```$", "", (DOCS / "derivation.md").read_text(encoding="utf-8"), flags=re.M | re.S)
    anchors: dict[str, str] = {}
    for section in re.split(r"^#+ ", prose, flags=re.M)[2:]:  # after the introduction, which names all of them
        heading = section.split("\n", 1)[0]
        anchor = re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
        for name in re.findall(r"\bD\d+\b", section):
            anchors.setdefault(name, anchor)
    return anchors


def _process_signature(
    app: Any, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str, str | None] | None:
    """Takes a class's signature from its ``__init__`` if its metaclass hides that, and writes a default by its name.

    The last two fields of every module of Linen, ``parent`` and ``name``, are left out.
    """
    if signature is None:
        return None
    if what == "class" and signature == "(*args, **kwargs)":
        _, *parameters = inspect.signature(obj.__init__).parameters.values()
        signature = stringify_signature(inspect.Signature(parameters), show_annotation=False)
    signature = re.sub(r", parent=<[^>]*>, name=None\b", "", signature.replace(".<locals>.", "."))
    return re.sub(r"<(?:class|function) '?([\w.]+)[^>]*>", r"\1", signature), returns


def mark_blocks(lines: list[str]) -> list[str]:
    """Puts a directive before each indented block of a docstring that is neither a section nor a doctest."""
    result: list[str] = []
    text, indent = "", 0  # the last line outside of blocks, and its indentation
    rest = join_names(lines)
    while rest:
        line = rest[0]
        follows_text = text and result and not result[-1].strip()
        if line.strip() and follows_text and _indent(line) > indent and not SECTION.match(text.strip()):
            block = list(_block(rest, indent))
            result += [" " * indent + f".. code-block:: {_language(block)}", "", *block, ""]
            del rest[: len(block)]
        else:
            if line.strip():
                text, indent = line, _indent(line)
            is_doctest = line.lstrip().startswith((">>>", "..."))
            result.append(line if is_doctest else line.replace("|", r"\|"))
            del rest[0]
    return result


def join_names(lines: list[str]) -> list[str]:
    """Puts the names that share an entry of ``Args`` on one line, and escapes the asterisks in front of them."""
    text = re.sub(r"(?m)^( +[a-z_]+(?:, [a-z_]+)+,)\n +(?=[a-z_]+(?:, [a-z_]+)*: )", r"\1 ", "\n".join(lines))
    return re.sub(r"(?m)^( +)\*args, \*\*kwargs: ", r"\1\\*args, \\*\\*kwargs: ", text).split("\n")


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _block(lines: list[str], indent: int) -> Iterator[str]:
    """The first lines that are indented further than ``indent``, with the blank ones between them."""
    for line in lines:
        if line.strip() and _indent(line) <= indent:
            return
        yield line


def _language(block: list[str]) -> str:
    code = dedent("\n".join(block)).strip()
    if code.startswith(">>>"):
        return "pycon"
    try:
        ast.parse(code)
    except SyntaxError:
        return "text"  # a formula, or a table
    return "python"


def _read_page(app: Any, page: str, source: list[str]) -> None:
    source[0] = redirect_links(source[0], (DOCS / page).parent, (DOCS / page).parent)


def _read_include(app: Any, path: Path, page: str, source: list[str]) -> None:
    source[0] = redirect_links(source[0], (DOCS / path).resolve().parent, DOCS)


def redirect_links(text: str, folder: Path, page_folder: Path) -> str:
    """Makes links of a Markdown file in ``folder`` right for a page in ``page_folder``.

    A link to a file that a page includes leads to the page. A link to a Python file whose text is the name of a public
    function leads to the reference. Others lead to the same file as before.
    """

    def redirect(match: re.Match[str]) -> str:
        words, target, anchor = match[1], match[2], match[3] or ""
        path = (folder / target).resolve()
        if "://" in target or not path.exists():
            return match[0]
        name = words.strip("`").removeprefix("jaxbn.")
        if path.suffix == ".py" and words.startswith("`") and is_public(name):
            return f"{{py:obj}}`{words.strip('`')} <jaxbn.{name}>`"
        inside = path.relative_to(DOCS.parent).as_posix()
        path = DOCS / PAGES[inside] if inside in PAGES else path
        return f"[{words}]({os.path.relpath(path, page_folder)}{anchor})"

    return LINK.sub(redirect, text)


def is_public(name: str) -> bool:
    """Whether ``jaxbn.<name>`` is a public name, such as ``conv`` or ``derivation.conv_layer``."""
    first, *rest = name.split(".")
    if not rest:
        return first in jaxbn.__all__
    return len(rest) == 1 and first in dir(jaxbn) and hasattr(getattr(jaxbn, first), rest[0])


class LinkNames(SphinxTransform):
    """Links ``jaxbn.conv`` and its like in Markdown to the reference. A name that is not there stays a literal."""

    default_priority = 400

    def apply(self, **kwargs: Any) -> None:
        for literal in list(self.document.findall(nodes.literal)):
            name = literal.astext().removesuffix("()")
            within = isinstance(literal.parent, nodes.reference | addnodes.pending_xref | addnodes.download_reference)
            if within or not re.fullmatch(r"jaxbn(\.\w+)+", name) or "xref" in literal["classes"]:
                continue
            link = addnodes.pending_xref(
                "", refdomain="py", reftype="obj", reftarget=name, refdoc=self.env.docname, refexplicit=True
            )
            literal["classes"] += ["xref", "py", "py-obj"]
            literal.replace_self(link)
            link += literal


class StripBlankLines(SphinxTransform):
    """Removes the blank line at the end of a session, which `doctest` needs before the end of a Markdown block."""

    default_priority = 400

    def apply(self, **kwargs: Any) -> None:
        for block in self.document.findall(nodes.literal_block):
            code = block.astext().rstrip()
            block.rawsource = code
            block.children = [nodes.Text(code)]


def _follow_import(app: Any, module: str, name: str) -> str | None:
    """Of a class in two modules, one entry links to the source: a source's link back leads to one entry."""
    return module if (module, name) == ("jaxbn.equinox", "SwapReport") else None


def _mathml(formula: str, *, as_block: bool = False) -> str:
    # Without the braces docutils would write the subscript of x̂ beneath the letter.
    return tex2mathml(re.sub(r"(\\hat (?:\w|\\[a-z]+))_", r"\1{}_", formula), as_block=as_block)


def _write_inline_math(translator: Any, node: nodes.math) -> None:
    translator.body.append(_mathml(node.astext()))
    raise nodes.SkipNode


def _write_math_block(translator: Any, node: nodes.math_block) -> None:
    formula = _mathml(node.astext(), as_block=True)
    translator.body.append(f'<div class="math-block">{formula}</div>\n')
    raise nodes.SkipNode
