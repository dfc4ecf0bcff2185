"""Size of a report, and what showing it takes: `python -m tests.benchmarks.report_time`.

The bars are 2 MB and one second for a plan of 64 stages and 256 micro-batches, until the page answers with
what is in view drawn. Seconds are processor time of the page's main thread: other work on the machine adds
nothing to them. Charts further down are drawn as they come into view; the largest are told. Needs chromium
and playwright.
"""

from __future__ import annotations

import statistics
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from tests.report.browser import browser, opened
from tests.report.subjects import deep_subject, example
from vdsgen.report.page import page
from vdsgen.report.plan.report import report_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser

RUNS = 5
DRAW = """async (id) => {
  const host = document.getElementById(id);
  host.dispatchEvent(new KeyboardEvent("keydown", { key: "Home" }));
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
}"""
LARGEST = ("schedule-planned", "schedule-other")


def main() -> None:
    """One line a plan: median milliseconds of several openings."""
    plans = {"64 stages": deep_subject(), "article-1.5b@four-24gb": example("article-1.5b@four-24gb")}
    with tempfile.TemporaryDirectory() as folder, browser() as chromium:
        for name, subject in plans.items():
            file = Path(folder, "report.html")
            file.write_bytes(page(report_of([subject])))
            runs = [_seconds(chromium, file) for _ in range(RUNS)]
            shown, *drawn = (1000 * statistics.median(each) for each in zip(*runs, strict=True))
            later = ", ".join(f"{chart} {each:.0f} ms" for chart, each in zip(LARGEST, drawn, strict=True))
            print(
                f"{name}: {file.stat().st_size / 1e6:.2f} MB, shown after {shown:.0f} ms; "
                f"scrolled to: {later}"
            )


def _seconds(chromium: Browser, file: Path) -> list[float]:
    """Until the page answers, then for each of the largest charts."""
    with opened(chromium, file) as found:
        busy = [found.busy_seconds()]
        for chart in LARGEST:
            found.page.evaluate(DRAW, chart)
            busy.append(found.busy_seconds())
    return [busy[0], *(after - before for before, after in pairwise(busy))]


if __name__ == "__main__":
    main()
