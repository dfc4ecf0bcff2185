"""docs/offload.md shows what the planner prints today."""

from __future__ import annotations

from tests.update_offload_page import PAGE, page


def test_the_plan_on_the_page_is_todays() -> None:
    assert PAGE.read_text() == page(), "run: python -m tests.update_offload_page"
