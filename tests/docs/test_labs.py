"""docs/labs.md shows what its commands print."""

from __future__ import annotations

import pytest

from tests.update_labs import PAGE
from tests.update_readme import BLOCK, ROOT, fresh
from vdsgen.spec.lab import NodeGroup


def test_the_page_shows_what_its_commands_print(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    text = PAGE.read_text(encoding="utf-8")
    assert len(BLOCK.findall(text)) == 3
    assert fresh(text) == text, "stale: run `python -m tests.update_labs`"


def test_the_page_names_every_key_of_a_group() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert [key for key in NodeGroup.model_fields if f"`{key}" not in text] == []
