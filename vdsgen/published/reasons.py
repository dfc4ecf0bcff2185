"""Why a row has no counterpart in this planner's terms."""

from __future__ import annotations


class CannotExpressError(Exception):
    """Caught where rows are compared, which show its text; no error of the user's."""
