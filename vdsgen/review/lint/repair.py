"""Repairs in rounds: a repair may bring another finding to light, or make one needless."""

from __future__ import annotations

from vdsgen.review.lint.context import Context
from vdsgen.review.lint.finding import Linted, Operation
from vdsgen.review.lint.patch import all_fixes
from vdsgen.review.lint.run import lint

MOST_ROUNDS = 8


def repaired(linted: Linted, context: Context) -> tuple[Linted, list[Operation]]:
    """The file with its repairs, linted again, and what was done."""
    operations: list[Operation] = []
    for _ in range(MOST_ROUNDS):
        document, done = all_fixes(linted.document, linted.findings)
        if not done or document.text == linted.document.text:
            break
        operations += done
        linted = lint(document.text.encode("utf-8", "surrogatepass"), document.file, context)
    return linted, operations
