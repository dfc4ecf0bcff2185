"""docs/verdicts.md says what training showed of changed settings."""

from __future__ import annotations

from tests.update_verdicts import PAGE, page


def test_the_page_is_fresh() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "stale: run `python -m tests.update_verdicts`"
