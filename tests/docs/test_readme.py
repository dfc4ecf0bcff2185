"""The README shows what its commands print."""

from __future__ import annotations

import pytest

from tests.update_readme import BLOCK, README, ROOT, abridged, fresh


def test_readme_shows_what_its_commands_print(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    text = README.read_text(encoding="utf-8")
    assert len(BLOCK.findall(text)) >= 2
    assert fresh(text) == text, "stale: run `python -m tests.update_readme`"


def test_lines_may_be_left_out_but_not_invented() -> None:
    assert abridged("a\nb\nc\nd\n", "a\n[...]\nd\n") == "a\n[...]\nd\n"
    with pytest.raises(ValueError, match="'z'"):
        abridged("a\nb\n", "a\n[...]\nz\n")
