"""The text of a review: is everything fresh, and what does the change do."""

from __future__ import annotations

from vdsgen.review.ci.comment import MARK


def review_markdown(check: str, diff: str) -> str:
    """One comment of two Markdown parts, which the next review of the same request replaces."""
    return f"{MARK}\n### Configurations\n\n{check.rstrip()}\n\n{diff.rstrip()}\n"
