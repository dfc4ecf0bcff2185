"""A real browser without a network: Debian's Chromium, driven by playwright."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, CDPSession, Page

CHROMIUM = shutil.which("chromium")


def missing() -> str | None:
    """Why there is no browser here; None where there is."""
    if CHROMIUM is None:
        return "chromium is not installed"
    return None if find_spec("playwright") else "playwright is not installed"


@contextmanager
def browser() -> Iterator[Browser]:
    """One start of it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Tests run as root in containers, where Chromium's own sandbox cannot.
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield started
        finally:
            started.close()


@dataclass
class Opened:
    """A page that was opened, and what went wrong in it."""

    page: Page
    session: CDPSession
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def busy_seconds(self) -> float:
        """Processor time of the page's main thread: what a busy machine does not add to."""
        metrics = self.session.send("Performance.getMetrics")["metrics"]
        return float(next(one["value"] for one in metrics if one["name"] == "TaskDuration"))

    def until(self, expression: str, argument: object = None) -> None:
        until(self.page, expression, argument)

    def see_all(self) -> None:
        """Scrolls through, so that every chart is drawn."""
        height = self.page.evaluate("document.documentElement.scrollHeight")
        for top in range(0, height, 600):
            self.page.evaluate("top => scrollTo(0, top)", top)
            self.page.wait_for_timeout(40)
        self.page.evaluate("scrollTo(0, 0)")


@contextmanager
def opened(chromium: Browser, file: Path, **context: Any) -> Iterator[Opened]:
    """The file, in a context of its own that is offline."""
    own = chromium.new_context(offline=True, **{"viewport": {"width": 1280, "height": 900}, **context})
    page = own.new_page()
    found = Opened(page, own.new_cdp_session(page))
    found.session.send("Performance.enable", {"timeDomain": "threadTicks"})
    page.on("console", lambda message: found.errors.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: found.errors.append(str(error)))
    page.on("request", lambda request: found.requests.append(request.url))
    try:
        page.goto(file.as_uri())
        page.wait_for_selector("html[data-ready]")
        yield found
    finally:
        own.close()


def until(page: Page, expression: str, argument: object = None, seconds: float = 20) -> None:
    """Waits until it is true. Playwright evaluates text in the page for that: its policy forbids it."""
    end = time.monotonic() + seconds
    while not page.evaluate(expression, argument):
        assert time.monotonic() < end, f"still not so: {expression}"
        page.wait_for_timeout(50)
