"""A run's report in a real browser: charts are drawn, sample videos play, and nothing is complained of."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.report.browser import browser, missing, opened, until
from tests.runs.directories import REAL
from vdsgen.report.run.report import run_report

if TYPE_CHECKING:
    from playwright.sync_api import Page

SKIP = missing()
pytestmark = pytest.mark.skipif(SKIP is not None and "VDSGEN_REQUIRE_ALL" not in os.environ, reason=str(SKIP))
UNTIL = """const until = async (done) => {
  const end = performance.now() + 5000;
  while (!done() && performance.now() < end) await new Promise((go) => setTimeout(go, 20));
};"""
PLAYS = f"""async () => {{
  {UNTIL}
  const found = [];
  for (const video of document.querySelectorAll("video")) {{
    video.muted = true;
    await video.play();
    await until(() => video.currentTime > 0);
    found.push([video.readyState, video.currentTime, video.videoWidth, video.controls]);
    video.pause();
  }}
  return found;
}}"""
DRAWN = f"""async () => {{
  {UNTIL}
  const charts = [...document.querySelectorAll(".chart")];
  for (const chart of charts) {{
    chart.scrollIntoView();
    await until(() => chart.querySelector("canvas"));
  }}
  return charts.map((one) => [one.id, !!one.querySelector("canvas")]);
}}"""
IDLE = "[...document.querySelectorAll('video')].every((one) => one.paused && !one.autoplay)"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The report of a real run, beside itself."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_bytes(run_report([REAL, REAL]))
    with browser() as chromium, opened(chromium, path) as found:
        yield found.page
        assert found.errors == []
        # Videos and pictures are in the page itself.
        assert [url for url in found.requests if not url.startswith("data:")] == [path.as_uri()]


def test_every_chart_is_drawn(page: Page) -> None:
    drawn = dict(page.evaluate(DRAWN))
    assert len(drawn) >= 14
    assert all(drawn.values()), drawn


def test_sample_videos_play_when_asked_and_not_before(page: Page) -> None:
    assert page.evaluate(
        "[...document.querySelectorAll('video')].every((one) => one.paused && !one.autoplay)"
    )
    found = page.evaluate(PLAYS)
    assert len(found) == 4
    for ready_state, seconds, width_px, controls in found:
        assert ready_state >= 3 and seconds > 0 and width_px == 128 and controls


def test_a_curve_is_walked_with_the_arrow_keys(page: Page) -> None:
    page.focus("#loss")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    until(page, "document.getElementById('said').textContent.includes('step 2')")
    assert "A: loss: " in page.inner_text("#said")


def test_events_say_what_happened(page: Page) -> None:
    page.focus("#events-a")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    until(page, "document.getElementById('said').textContent.includes('was killed by SIGKILL')")
