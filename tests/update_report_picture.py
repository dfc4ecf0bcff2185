"""Takes the pictures of reports that docs/report.md shows: `python -m tests.update_report_picture`.

Needs chromium and playwright; Pillow to make it small.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

from tests.report.browser import browser, opened
from tests.report.subjects import example
from vdsgen.files import write_atomically
from vdsgen.report.page import page
from vdsgen.report.plan.report import report_of

IMAGES = Path(__file__).parents[1] / "docs/images"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, browser() as chromium:
        file = Path(folder, "report.html")
        file.write_bytes(page(report_of([example("article-1.5b@four-24gb")])))
        with opened(chromium, file, color_scheme="light", viewport={"width": 1200, "height": 930}) as found:
            found.page.wait_for_timeout(300)
            _write("report.png", found.page.screenshot())
        file.write_bytes(page(report_of([example("article-2.1b-pinned@eight-24gb")])))
        with opened(chromium, file, color_scheme="dark", viewport={"width": 1200, "height": 930}) as found:
            chart = found.page.locator("figure", has=found.page.locator("#schedule-planned"))
            chart.scroll_into_view_if_needed()
            found.page.wait_for_timeout(1000)
            _write("report-schedule.png", chart.screenshot())


def _write(name: str, shot: bytes) -> None:
    """Smaller than the browser writes it."""
    from PIL import Image

    content = io.BytesIO()
    image = Image.open(io.BytesIO(shot)).convert("RGB")
    image.save(content, "PNG", optimize=True)
    write_atomically(IMAGES / name, content.getvalue())


if __name__ == "__main__":
    main()
