"""Settings of the web edition; `python3 course.py site` builds it (tools/site.py)."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "site")]

from course import pages_address, repository

ADDRESS = repository(ROOT)
project = html_title = "Build a reasoning model, step by step"
author = copyright = ""
extensions = ["myst_nb", "crosslinks"]
root_doc = "index"
language = "en-GB"

# Notebooks are shown as they are committed.
nb_execution_mode = "off"
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
myst_dmath_double_inline = True

html_theme = "sphinx_book_theme"
html_static_path = ["static"]
html_css_files = ["course.css"]
html_js_files = ["course.js"]
html_baseurl = pages_address(ADDRESS)
html_sourcelink_suffix = ""
html_show_copyright = html_show_sphinx = False
html_theme_options = {
    "repository_url": f"https://github.com/{ADDRESS}",
    "repository_branch": "main",
    "use_repository_button": True,
    "use_download_button": True,
    "use_fullscreen_button": False,
    "launch_buttons": {"colab_url": "https://colab.research.google.com"},
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "back_to_top_button": True,
}

# Of the pages' own folder: no request leaves it.
mathjax_path = "mathjax/tex-chtml.js"
mathjax3_config = {"options": {"enableMenu": False}}


def setup(app):
    """Add what tools/site.py has put beside the pages."""
    app.connect("builder-inited", lambda app: app.config.html_static_path.append(str(app.srcdir.parent / "static")))
