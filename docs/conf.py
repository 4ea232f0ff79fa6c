"""Configuration of the documentation site: Sphinx reads the Markdown of this folder (`make docs`)."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import django

from signalbus import __version__

if TYPE_CHECKING:
    from sphinx.application import Sphinx

# autodoc imports the library's modules, and some of them read Django's settings.
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
django.setup()

project = "signalbus"
author = "the signalbus authors"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build"]
suppress_warnings = ["toc.not_included"]  # decision records are reached from their table, not from the sidebar
nitpicky = False  # annotations name private types and those of Django, which have no page here

html_theme = "furo"
html_title = "signalbus"
html_copy_source = False
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = [("tables.js", {"defer": "defer"})]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4

copybutton_exclude = ".gp, .go"  # the prompt and the output of a console block

default_role = "code"  # what stands in single backticks in docstrings
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"

# Pages of this folder also are read in the checkout, where these files stand above it.
ABOVE = {"../README.md": "index.md", "../CHANGELOG.md": "changelog.md", "../CONTRIBUTING.md": "contributing.md"}


def _link_to_pages(_app: Sphinx, _name: str, source: list[str]) -> None:
    """Replace links to files above this folder by links to the pages that show them."""
    source[0] = re.sub(r"\]\((\.\./[A-Z]+\.md)", lambda match: f"]({ABOVE.get(match[1], match[1])}", source[0])


def setup(app: Sphinx) -> None:
    """Register the handler of links, as Sphinx asks for."""
    app.connect("source-read", _link_to_pages)
