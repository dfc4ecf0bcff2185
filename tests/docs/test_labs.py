"""docs/labs.md names every key of a group."""

from __future__ import annotations

from tests.docs.blocks import ROOT
from vdsgen.spec.lab import NodeGroup

PAGE = ROOT / "docs" / "labs.md"


def test_the_page_names_every_key_of_a_group() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert [key for key in NodeGroup.model_fields if f"`{key}" not in text] == []
