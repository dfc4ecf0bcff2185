"""Size of a report, and when a browser shows it: `python -m tests.benchmarks.report_time`.

The bars are 2 MB and one second for a plan of 64 stages and 256 micro-batches, until the page answers with what is
in view drawn, on an idle machine. Needs chromium and playwright. Charts further down are drawn as they come into
view; how long the largest take is printed too.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from tests.report.browser import browser, opened
from tests.report.subjects import deep_subject, example
from vdsgen.report.page import page
from vdsgen.report.plan.report import report_of

RUNS = 5
TIMES = """() => {
  const navigation = performance.getEntriesByType("navigation")[0];
  const paint = performance.getEntriesByName("first-contentful-paint")[0];
  return [paint.startTime, navigation.loadEventEnd, performance.now()];
}"""
DRAW = """async (id) => {
  const host = document.getElementById(id);
  const begin = performance.now();
  host.dispatchEvent(new KeyboardEvent("keydown", { key: "Home" }));
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  return performance.now() - begin;
}"""
LARGEST = ("schedule-planned", "schedule-other")


def main() -> None:
    """One line a plan: median milliseconds of several openings."""
    plans = {"64 stages": deep_subject(), "article-1.5b@four-24gb": example("article-1.5b@four-24gb")}
    with tempfile.TemporaryDirectory() as folder, browser() as chromium:
        for name, subject in plans.items():
            file = Path(folder, "report.html")
            file.write_bytes(page(report_of([subject])))
            times, drawn = [], []
            for _ in range(RUNS):
                with opened(chromium, file) as found:
                    times.append(found.page.evaluate(TIMES))
                    drawn.append([found.page.evaluate(DRAW, chart) for chart in LARGEST])
            painted, loaded, ready = (statistics.median(each) for each in zip(*times, strict=True))
            schedules = ", ".join(
                f"{chart} {statistics.median(each):.0f} ms"
                for chart, each in zip(LARGEST, zip(*drawn, strict=True), strict=True)
            )
            print(
                f"{name}: {file.stat().st_size / 1e6:.2f} MB, first paint {painted:.0f} ms, loaded "
                f"{loaded:.0f} ms, ready {ready:.0f} ms; when scrolled to: {schedules}"
            )


if __name__ == "__main__":
    main()
