"""What the command line says to people: every error a user can cause is one of these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class VdsgenError(Exception):
    """Something a user can put right. `exit_code` is what the command exits with."""

    exit_code = 2

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return self.message if self.remedy is None else f"{self.message}\n  -> {self.remedy}"


class Problem(NamedTuple):
    """One thing wrong in one place of an input. Lines and columns count from 1."""

    message: str
    file: str | None = None
    line: int | None = None
    column: int | None = None
    key: str | None = None
    remedy: str | None = None

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)
        key = f"{self.key}: " if self.key else ""
        head = f"{place}: {key}{self.message}" if place else f"{key}{self.message}"
        return head if self.remedy is None else f"{head}\n  -> {self.remedy}"


class InputError(VdsgenError):
    """Bad input: all of its problems at once."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        assert problems, "an InputError without a problem"
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


class NoPlanFitsError(VdsgenError):
    """Nothing in the search space fits; the message names the nearest miss."""

    exit_code = 3
