"""A value of a lab file, and what stands beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Said:
    """Equal where the value is: where a figure comes from makes no two machines different."""

    value: Any
    comment: str = field(default="", compare=False)
    """One line, for the person who reads the file."""
    inside: tuple[tuple[str, str], ...] = field(default=(), compare=False)
    """(key, comment) of the keys of a value that is a mapping."""
