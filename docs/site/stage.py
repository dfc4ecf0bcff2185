"""Everything that Sphinx reads, as texts by path: pages of docs/, and those made from the code."""

from __future__ import annotations

import re
from pathlib import Path

from docs.site.catalogues import catalogue_pages
from docs.site.commands import command_pages
from docs.site.contents import with_contents
from docs.site.engine_keys import engine_key_page
from docs.site.formulas import formula_pages
from docs.site.markdown import fence
from docs.site.schemas import schema_pages

ROOT = Path(__file__).parent.parent.parent
MADE = {
    "Commands": "reference/commands.md",
    "lab.yaml": "reference/lab.md",
    "experiment.yaml": "reference/experiment.md",
    "plan.json": "reference/plan.md",
    "ds_config.json": "reference/ds_config.md",
    "GPUs": "reference/gpus.md",
    "Links": "reference/links.md",
    "Models": "reference/models.md",
    "Formulas": "reference/formulas.md",
}
"""Rows of docs/reference.md that name pages which are there on the site alone."""
FILE_LINK = re.compile(r"\]\(\.\./([A-Za-z0-9@_./-]+)\)")
"""A link from a page of docs/ to another file of the repository."""
COMMENT = re.compile(r"^<!--.*?-->\n", re.MULTILINE | re.DOTALL)
LANGUAGES = {
    ".yaml": "yaml",
    ".yml": "yaml",
    ".json": "json",
    ".py": "python",
    ".sh": "bash",
    ".md": "markdown",
}


def staged(root: Path = ROOT) -> dict[str, str]:
    """Path below the site's sources -> Markdown. Links to files that are no pages lead to a page that shows
    the file."""
    pages = {
        path.name: _without_comments(path.read_text("utf-8")) for path in sorted((root / "docs").glob("*.md"))
    }
    files = sorted({match[1] for text in pages.values() for match in FILE_LINK.finditer(text)})
    pages = {path: FILE_LINK.sub(r"](files/\1.md)", text) for path, text in pages.items()}
    pages |= {f"files/{name}.md": _file_page(root, name) for name in files}
    pages["reference.md"] = _with_made_pages(pages["reference.md"])
    made = [
        command_pages(),
        schema_pages(root / "vdsgen/spec/schemas"),
        catalogue_pages(),
        engine_key_page(root),
        formula_pages(root / "vdsgen/cost"),
    ]
    for more in made:
        pages |= more
    return with_contents(pages)


def _with_made_pages(text: str) -> str:
    for name, page in MADE.items():
        assert f"\n| {name} |" in text, f"docs/reference.md has no row {name}"
        text = text.replace(f"\n| {name} |", f"\n| [{name}]({page}) |")
    return text.replace(", so not on GitHub:", ":")


def _without_comments(text: str) -> str:
    """What tests of the pages note in them is no part of the site."""
    return COMMENT.sub("", text)


def _file_page(root: Path, name: str) -> str:
    path = root / name
    if not path.is_file():
        raise FileNotFoundError(f"a page of docs/ links to {name}, which is no file of the repository")
    return f"---\norphan: true\n---\n\n# {path.name}\n\n`{name}`\n\n{fence(path.read_text('utf-8'), LANGUAGES.get(path.suffix, ''))}"
