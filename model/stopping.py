"""Ending a run early, on request, with a checkpoint of its last step."""

from __future__ import annotations

from pathlib import Path

from vdsgen.spec.run import STOP_REQUEST


def take_stop_request(run: Path) -> bool:
    """Whether somebody has asked for the end since this was last called; removes RUN/stop-request. Rank 0
    alone reads it."""
    try:
        (run / STOP_REQUEST).unlink()
    except OSError:
        return False
    return True
