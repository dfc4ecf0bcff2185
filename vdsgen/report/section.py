"""What a report consists of: sections with figures, each a chart and the table of what it shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Tone = Literal["plain", "good", "bad"]


@dataclass(frozen=True)
class Table:
    """Rows of text; the first column names its row, the others are aligned right where `numbers`."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    numbers: bool = True


@dataclass(frozen=True)
class Figure:
    """One chart, and what it shows as a table: for screen readers, for copying, and without scripts."""

    id: str
    """Unique in the report; letters, digits and hyphens."""
    title: str
    chart: str
    """The name of its option builder in assets/charts*.js; empty where `svg` is the picture."""
    data: Mapping[str, Any]
    """JSON that the builder takes. Text in it is shown as text, never as markup."""
    table: Table
    description: str
    """What the chart shows, in a sentence or two, for those who cannot see it."""
    note: str = ""
    """Shown below it: what is left out, what is assumed."""
    height_px: int = 320
    wide: bool = False
    """Takes a whole row where others stand beside each other."""
    svg: str = ""
    """A picture made here, of trusted markup with escaped text."""


@dataclass(frozen=True)
class Media:
    """A picture or a film inside the page."""

    id: str
    title: str
    media_type: Literal["image/png", "image/gif", "image/webp", "video/mp4", "video/webm"]
    content: bytes
    description: str


@dataclass(frozen=True)
class Section:
    """One part of a report with its place in the contents."""

    id: str
    title: str
    summary: Sequence[str]
    """Paragraphs of plain text: what there is to see, with its figures."""
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    """Always open, below the figures."""
    media: Sequence[Media] = ()


@dataclass(frozen=True)
class Fact:
    """One figure of the headline."""

    label: str
    value: str
    note: str = ""
    tone: Tone = "plain"


@dataclass(frozen=True)
class Subject:
    """A plan or a run that a report is about; of two, the first is A and the second B."""

    name: str
    facts: Sequence[Fact]
    words: str = ""
    """One line under the name."""


@dataclass(frozen=True)
class Report:
    """The whole page."""

    title: str
    subjects: Sequence[Subject]
    sections: Sequence[Section]
    footer: Sequence[str] = field(default_factory=tuple)
    """Where it comes from: hashes, versions."""
