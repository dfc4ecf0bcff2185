"""docs/profiles.md lists the models that the catalogue has profiles of."""

from __future__ import annotations

from pathlib import Path

from vdsgen.catalog.markdown import models_table

PAGE = Path(__file__).parents[2] / "docs" / "profiles.md"


def test_the_table_of_models_is_fresh() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert models_table() in text, "stale: `python -m vdsgen.catalog.markdown` prints the table"
