"""The order of the site's pages, from the lists of links in the pages that lead to others.

GitHub shows a table of contents directive as code, so the sources hold none: in the pages below, every link to
another page is one entry, in its order.
"""

from __future__ import annotations

import re

LEADING = ("index.md", "guides.md", "how_it_works.md", "reference.md", "measured.md")
"""Pages whose links are the table of contents, in this order; a page linked from several belongs to the first."""
PAGE_LINK = re.compile(r"\]\(([a-z0-9_./-]+\.md)(?:#[^)]*)?\)")


def with_contents(pages: dict[str, str]) -> dict[str, str]:
    """The leading pages with a hidden table of contents each. Every page is in exactly one."""
    placed: dict[str, list[str]] = {}
    seen = {"index.md"}
    for leading in (*LEADING, *_inner(pages)):
        placed[leading] = [
            page for page in dict.fromkeys(_linked(leading, pages[leading])) if page not in seen
        ]
        seen.update(placed[leading])
    nowhere = sorted(page for page in pages if page not in seen and not page.startswith("files/"))
    if nowhere:
        raise ValueError(f"no page that leads to others ({', '.join(LEADING)}) links to {', '.join(nowhere)}")
    return {path: text + _directive(placed[path]) if path in placed else text for path, text in pages.items()}


def _inner(pages: dict[str, str]) -> list[str]:
    """Reference pages that lead to pages below a folder of their own name."""
    return sorted(
        path
        for path in pages
        if any(one.startswith(f"{path[:-3]}/") for one in pages) and path not in LEADING
    )


def _linked(page: str, text: str) -> list[str]:
    folder = page.rpartition("/")[0]
    found = [_joined(folder, target) for target in PAGE_LINK.findall(text)]
    if page.startswith("reference/"):
        return [one for one in found if one.startswith(f"{page[:-3]}/")]
    return [one for one in found if not one.startswith("..")]


def _joined(folder: str, target: str) -> str:
    parts = folder.split("/") if folder else []
    for part in target.split("/"):
        if part == ".." and parts and parts[-1] != "..":
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)


def _directive(entries: list[str]) -> str:
    if not entries:
        return ""
    lines = "\n".join(f"/{entry.removesuffix('.md')}" for entry in entries)
    return f"\n```{{toctree}}\n:hidden:\n:titlesonly:\n\n{lines}\n```\n"
