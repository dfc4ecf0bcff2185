"""Reports in a real browser: nothing is asked of the network or fails, and everything can be operated."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.report.browser import browser, missing, opened
from tests.report.subjects import deep_subject, example, pair
from vdsgen.report.page import page
from vdsgen.report.plan.gantt import schedule_section
from vdsgen.report.plan.memory import memory_section
from vdsgen.report.plan.report import report_of
from vdsgen.report.section import Report

if TYPE_CHECKING:
    from playwright.sync_api import Browser

SKIP = missing()
pytestmark = pytest.mark.skipif(SKIP is not None and "VDSGEN_REQUIRE_ALL" not in os.environ, reason=str(SKIP))

DRAWN = "[...document.querySelectorAll('.chart')].every(one => one.querySelector('canvas')?.width > 100)"
WIDER = "document.documentElement.scrollWidth - innerWidth"
TIP = "[...document.querySelectorAll('.tip')].map(one => one.textContent).join()"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("report") / "plan.html"
    file.write_bytes(page(report_of([example("article-2.1b-pinned@eight-24gb")])))
    return file


def test_every_chart_is_drawn_without_an_error_or_a_request(chromium: Browser, plan: Path) -> None:
    with opened(chromium, plan) as found:
        found.see_all()
        assert found.page.evaluate(DRAWN)
        assert found.errors == []
        assert found.requests == [plan.as_uri()]
        assert found.page.evaluate(WIDER) <= 0


def test_the_theme_switch_is_remembered_and_the_systems_is_followed(chromium: Browser, plan: Path) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    with opened(chromium, plan, color_scheme="dark") as found:
        dark = found.page.evaluate(background)
        button = found.page.locator("#theme")
        button.click()
        assert button.text_content() == "Theme: light"
        assert found.page.evaluate(background) == "rgb(255, 255, 255)" != dark
        found.page.reload()
        found.page.wait_for_selector("html[data-ready='light']")
        found.page.keyboard.press("t")
        found.page.keyboard.press("t")
        assert button.text_content() == "Theme: system"
        assert found.page.evaluate(background) == dark
        assert found.errors == []


def test_a_chart_is_walked_by_keyboard_and_read_out(chromium: Browser, plan: Path) -> None:
    with opened(chromium, plan) as found:
        page = found.page
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.locator("#memory-step").focus()
        page.keyboard.press("End")
        found.until("document.getElementById('said').textContent.includes('OptimizerStep')")
        page.keyboard.press("Home")
        found.until("document.getElementById('said').textContent.includes('micro-batch 0')")
        assert "together" in page.evaluate(TIP)
        page.keyboard.press("Enter")
        assert page.locator("#memory-step ~ details.table").evaluate("one => one.open")
        page.locator("#schedule-planned").focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowDown")
        found.until("document.getElementById('said').textContent.includes('stage 1')")
        page.keyboard.press("+")
        page.keyboard.press("0")
        page.keyboard.press("Escape")
        page.keyboard.press("?")
        assert page.locator("#keys").evaluate("one => one.open")
        page.keyboard.press("Escape")
        assert not page.locator("#keys").evaluate("one => one.open")
        page.keyboard.press("j")
        assert found.errors == []


def test_a_pointer_gets_figures_and_a_stage_is_chosen(chromium: Browser, plan: Path) -> None:
    with opened(chromium, plan) as found:
        page = found.page
        chart = page.locator("#memory-step")
        chart.scroll_into_view_if_needed()
        chart.hover(position={"x": 400, "y": 250})
        found.until("document.querySelector('.tip')?.textContent.includes('GiB')")
        before = page.evaluate("document.querySelector('#memory-step canvas').toDataURL()")
        page.locator(".choice select").first.select_option(label="stage 3")
        found.until("before => document.querySelector('#memory-step canvas').toDataURL() !== before", before)
        shown = page.evaluate("document.querySelector('#memory-step canvas').toDataURL()")
        chart.click(position={"x": 60, "y": 12})  # a name in the legend
        found.until("before => document.querySelector('#memory-step canvas').toDataURL() !== before", shown)
        page.locator("details.table summary").first.click()
        page.locator("details.table .copy").first.click()
        found.until("/Copied|Selected/.test(document.querySelector('.copy').textContent)")
        assert found.errors == []


def test_it_prints_in_light_colours_with_all_charts(chromium: Browser, plan: Path) -> None:
    with opened(chromium, plan, color_scheme="dark") as found:
        printed = found.page.pdf(format="A4")
        assert printed.startswith(b"%PDF")
        assert printed.count(b"/Type /Page\n") + printed.count(b"/Type /Page ") >= 4
        assert found.page.evaluate(DRAWN)
        assert found.errors == []


def test_two_plans_fit_a_phone(chromium: Browser, tmp_path: Path) -> None:
    file = tmp_path / "pair.html"
    both = pair("article-2.1b-pinned@eight-24gb", "article-1.2b-pinned@four-16gb")
    sections = [memory_section(both), schedule_section(both)]
    file.write_bytes(page(Report("two", [], sections)))
    with opened(chromium, file, viewport={"width": 390, "height": 800}) as found:
        found.see_all()
        assert found.page.evaluate(DRAWN)
        assert found.page.evaluate(WIDER) <= 0
        assert found.errors == []


def test_64_stages_are_small_and_soon_drawn(chromium: Browser, tmp_path: Path) -> None:
    """In processor time, as benchmarks/report_time.py measures it."""
    file = tmp_path / "deep.html"
    sections = [memory_section([deep_subject()]), schedule_section([deep_subject()])]
    file.write_bytes(page(Report("64 stages", [], sections)))
    assert file.stat().st_size < 2_000_000
    with opened(chromium, file) as found:
        assert found.busy_seconds() < 1
        found.see_all()
        assert found.page.evaluate(DRAWN)
        assert found.errors == []
