"""docs/article.md says what the committed plans say."""

from __future__ import annotations

from tests.update_article import PAGE, page


def test_article_page_is_fresh() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "stale: run `python -m tests.update_article`"
