"""The site's configuration: ``python -m sphinx -W --keep-going -b html docs build/docs``, with the extra ``docs``."""

from typing import Any

import jaxbn
from docs import _site

project = "jaxbn"
author = "the authors of jaxbn"
version = release = jaxbn.__version__
language = "en-GB"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
source_suffix = {".md": "markdown"}
exclude_patterns = ["tests", "figures", "explorer"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4

default_role = "py:obj"  # in docstrings a name in single backticks is a link where it is documented, or else a literal
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "none"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False
napoleon_use_rtype = False
viewcode_follow_imported_members = True
python_maximum_signature_line_length = 88

html_theme = "furo"
html_title = "jaxbn"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_favicon = "_static/favicon.svg"
html_extra_path = ["explorer.html"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
copybutton_exclude = ".linenos, .gp, .go"  # a copied session is the input alone


def setup(app: Any) -> None:
    _site.setup(app)
