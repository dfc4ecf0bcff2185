"""docs/reliability.md says what the campaigns measured."""

from __future__ import annotations

from tests.campaigns.figures import FOLDER
from tests.update_reliability import CAMPAIGNS, PAGE, page


def test_the_page_is_fresh() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "stale: run `python -m tests.update_reliability`"


def test_no_figures_are_left_untold() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == set(CAMPAIGNS)
