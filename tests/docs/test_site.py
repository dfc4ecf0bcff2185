"""The site builds without a warning, loads nothing from elsewhere, leads to every page, can be searched."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import click
import pytest

from docs.site.commands import pages_of
from docs.site.contents import with_contents
from docs.site.stage import staged

ROOT = Path(__file__).parent.parent.parent
CHROMIUM = Path("/usr/bin/chromium")
BUILDER = (
    "import sys; from pathlib import Path; from docs.site.build import build, run_sphinx; "
    "out = Path(sys.argv[1]); broken = out.with_name('broken'); "
    "print('broken', run_sphinx(broken, out.with_name('broken-out'))); sys.exit(build(out))"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by a process of its own: Sphinx keeps much in modules. Before it, a page with broken links."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "broken").mkdir()
    (folder / "broken/index.md").write_text("# Broken\n\n[nowhere](nowhere.md), [no part](#no-such-part)\n")
    out = folder / "docs"
    done = subprocess.run(
        [sys.executable, "-c", BUILDER, str(out)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "broken 1", "broken links were no error"
    assert "nowhere.md" in done.stderr and "no-such-part" in done.stderr
    assert done.stderr.count("WARNING") == 2, done.stderr
    return out


class Page(HTMLParser):
    """Addresses of a page: what it loads, what it links to, and the places in it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.places: set[str] = set()
        self.text = path.read_text("utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.places |= {given[key] for key in ("id", "name") if key in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "link":
            self.loads.append(given.get("href", ""))
        elif "src" in given:
            self.loads.append(given["src"])


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in site.rglob("*.html")}


def test_nothing_is_loaded_from_elsewhere(site: Path, pages: dict[Path, Page]) -> None:
    for path, page in pages.items():
        for address in page.loads:
            parts = urlsplit(address)
            assert not parts.scheme and not parts.netloc, f"{path}: {address}"
            assert (path.parent / unquote(parts.path)).is_file() or address == "#", f"{path}: {address}"
    for sheet in site.rglob("*.css"):
        assert "url(http" not in sheet.read_text("utf-8") and "@import" not in sheet.read_text("utf-8"), sheet


def test_every_link_leads_somewhere_and_every_page_is_reached(site: Path, pages: dict[Path, Page]) -> None:
    reached, waiting = set[Path](), [site / "index.html"]
    while waiting:
        path = waiting.pop()
        if path in reached:
            continue
        reached.add(path)
        for target, place in _inner_links(path, pages[path]):
            assert target.is_file(), f"{path}: {target}"
            if target not in pages:
                continue
            assert not place or place in pages[target].places, f"{path}: {target}#{place}"
            waiting.append(target)
    assert {path.name for path in pages.keys() - reached} <= {"search.html"}


def _inner_links(path: Path, page: Page) -> Iterator[tuple[Path, str]]:
    for address in page.links:
        parts = urlsplit(address)
        if not parts.scheme and not parts.netloc:
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            yield target, unquote(parts.fragment)


def test_pages_name_no_place_of_the_machine_that_built_them(site: Path, pages: dict[Path, Page]) -> None:
    for path, page in pages.items():
        assert str(site.parent) not in page.text and str(ROOT) not in page.text, path


def test_every_page_of_the_repository_is_on_the_site(site: Path) -> None:
    for path in (ROOT / "docs").glob("*.md"):
        assert (site / f"{path.stem}.html").is_file(), path


def test_reference_is_made_from_the_code(site: Path) -> None:
    def text(page: str) -> str:
        return (site / "reference" / page).read_text("utf-8")

    assert "--explain" in text("commands/plan.html")
    assert "gpus_per_host_link" in text("lab.html")
    assert "rtx-3090" in text("gpus.html")
    assert "https://arxiv.org/abs/1909.08053" in text("formulas/communication.html")
    assert "zero_optimization.stage" in text("ds_config.html")


def test_search_has_an_index(site: Path) -> None:
    index = (site / "searchindex.js").read_text("utf-8")
    assert '"first_day"' in index and '"reference/formulas/time"' in index


def test_a_page_that_nothing_leads_to_is_named() -> None:
    pages = dict.fromkeys(("index.md", "guides.md", "how_it_works.md", "reference.md", "measured.md"), "")
    pages["index.md"] = "".join(f"[x]({page})" for page in list(pages)[1:])
    with pytest.raises(ValueError, match=r"links to lonely\.md"):
        with_contents({**pages, "lonely.md": "# Lonely"})


def test_commands_within_a_command_have_pages_below_its_own() -> None:
    @click.group()
    def outer() -> None:
        """Outer."""

    @outer.command()
    @click.option("--depth", type=click.IntRange(min=1), default=2, show_default=True, help="How deep.")
    def inner(depth: int) -> None:
        """Inner."""

    pages = pages_of("outer", outer)
    assert list(pages) == ["reference/commands/outer.md", "reference/commands/outer/inner.md"]
    assert "[`vdsgen outer inner`](outer/inner.md) | Inner." in pages["reference/commands/outer.md"]
    assert "| `--depth` | whole number, ≥ 1 | `2` | How deep. |" in pages["reference/commands/outer/inner.md"]


def test_sources_hold_no_directives() -> None:
    """GitHub would show them as code."""
    for path in (ROOT / "docs").glob("*.md"):
        assert "```{" not in path.read_text("utf-8") and ":::" not in path.read_text("utf-8"), path


def test_staging_twice_gives_the_same() -> None:
    assert staged() == staged()


@pytest.mark.skipif(
    not CHROMIUM.exists() and "VDSGEN_REQUIRE_ALL" not in os.environ,
    reason="needs the Debian package chromium",
)
def test_a_browser_finds_a_word_without_a_server(site: Path) -> None:
    from playwright.sync_api import sync_playwright

    said: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 400, "height": 800})
        page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("requestfailed", lambda request: said.append(request.url))
        page.goto((site / "search.html").as_uri() + "?q=stage_end_lower_bounds")
        page.wait_for_selector("ul.search a", timeout=20_000)
        assert "Time of a step" in page.inner_text("ul.search")
        page.goto((site / "article.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), (
            "wider than a phone"
        )
        browser.close()
    assert said == []
