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
FILE_LINK = re.compile(r"(?<!!)\[(?P<text>[^\]\n]+)\]\((?P<to>(?:\.\./|measured/)[A-Za-z0-9@_./-]+)\)")
"""A link from a page of docs/ to a file or folder of the repository that is no page."""
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
    files = sorted({_target(match) for text in pages.values() for match in FILE_LINK.finditer(text)})
    pages = {path: FILE_LINK.sub(_to_file_page, text) for path, text in pages.items()}
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


def _target(link: re.Match[str]) -> str:
    """Below the repository's root."""
    return link["to"].removeprefix("../") if link["to"].startswith("../") else f"docs/{link['to']}"


def _to_file_page(link: re.Match[str]) -> str:
    return f"[{link['text']}](files/{_target(link)}.md)"


def _file_page(root: Path, name: str) -> str:
    """The file, or the names of what a folder holds."""
    path = root / name
    if path.is_dir():
        held = sorted(one.relative_to(path).as_posix() for one in path.rglob("*") if one.is_file())
        shown = fence("\n".join(held))
    elif path.is_file():
        shown = fence(path.read_text("utf-8"), LANGUAGES.get(path.suffix, ""))
    else:
        raise FileNotFoundError(f"a page of docs/ links to {name}, which is not in the repository")
    return f"---\norphan: true\n---\n\n# {path.name}\n\n`{name}`\n\n{shown}"
