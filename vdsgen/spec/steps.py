"""Steps that somebody asks for, as words."""

from __future__ import annotations

import re
from dataclasses import dataclass

from vdsgen.errors import VdsgenError

STEPS = re.compile(r"(\d{1,12})(?::(\d{1,12}))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Steps:
    """First and last step, counted from 1."""

    first: int
    last: int

    def __contains__(self, step: int) -> bool:
        return self.first <= step <= self.last

    def __str__(self) -> str:
        return f"{self.first}:{self.last}"


def parse_steps(text: str) -> Steps:
    """`10:12` or `10`. Raises VdsgenError for anything else."""
    match = STEPS.fullmatch(text.strip())
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if first < 1 or last < first:
        raise VdsgenError(
            f"{text.strip()!r} are no steps to profile", remedy="write FIRST:LAST, such as 10:12, or one step"
        )
    return Steps(first, last)
