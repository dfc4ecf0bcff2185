"""Asking ranks of this machine what they do: the state of their process, and the stacks of their threads."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from vdsgen.launch.watch import PROC, state_of
from vdsgen.spec.run import STACKS_SIGNAL

SIGNAL = getattr(signal, STACKS_SIGNAL)


def ask_for_stacks(pid: int) -> bool:
    """Whether the process writes its stacks into its log now. A rank that has no handler yet would die of
    being asked, and one that is stopped cannot answer."""
    if state_of(pid) in ("T", "t", "Z", "X", "") or not _catches(PROC / str(pid) / "status"):
        return False
    try:
        os.kill(pid, SIGNAL)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _catches(status: Path) -> bool:
    """SigCgt of proc_pid_status(5): a bit a signal, the first one's the lowest."""
    try:
        lines = status.read_text().splitlines()
    except OSError:
        return False
    masks = [line.split()[1] for line in lines if line.startswith("SigCgt:")]
    return bool(masks) and bool(int(masks[0], 16) >> (SIGNAL - 1) & 1)
