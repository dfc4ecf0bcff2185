"""How Sphinx builds the site (`make docs`). Its sources are staged by docs/site/stage.py."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from vdsgen import __version__

project = "vdsgen"
version = release = __version__
extensions = ["myst_parser", "sphinx_copybutton"]

myst_heading_anchors = 4
nitpicky = True
smartquotes = False  # `--option` stays two dashes

html_theme = "furo"
html_title = f"vdsgen {__version__}"
html_static_path = [str(Path(__file__).parent / "site" / "static")]
html_css_files = ["site.css"]
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False
html_use_index = False
html_show_search_summary = False  # summaries are fetched, which browsers refuse pages of file://
html_last_updated_fmt = None  # the same pages give the same bytes on any day
highlight_language = "none"
pygments_style = "default"
pygments_dark_style = "github-dark"

copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True
copybutton_line_continuation_character = "\\"
copybutton_exclude = ".linenos"
