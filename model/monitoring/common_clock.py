"""The clocks of all ranks, compared: what happened on several of them gets one time."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from deepspeed import comm as dist

from vdsgen.model.agreement import everybodys

ROUNDS = 9
"""Barriers that are met; the first one makes connections, and does not count."""
BOOT = Path("/proc/sys/kernel/random/boot_id")
NAMESPACE = Path("/proc/self/ns/time")


class Alignment(NamedTuple):
    """Of this rank's time.perf_counter against the first rank's."""

    offset_seconds: float
    """What is to be taken off."""
    uncertainty_seconds: float
    """How far the comparisons scatter; 0 where both have the same clock."""


def align() -> Alignment:
    """Collective: all ranks meet a few times, and leave each meeting at about the same moment. Ranks of one
    host have one clock (clock_gettime(2), CLOCK_MONOTONIC), which needs no comparison."""
    stamps = []
    for _ in range(ROUNDS):
        dist.barrier()
        stamps.append(time.perf_counter())
    found = everybodys(lambda: (_clock(), tuple(stamps[1:])))
    return alignment(found, dist.get_rank())


def alignment(found: Sequence[tuple[str, Sequence[float]]], rank: int) -> Alignment:
    """Of `rank`; `found` has of each rank the name of its clock and its stamp of each meeting."""
    own, (first, base) = found[rank][0], found[0]
    if own == first:
        return Alignment(0.0, 0.0)
    of_host = [stamps for clock, stamps in found if clock == own]
    differences = [
        statistics.median(stamps[meeting] for stamps in of_host) - base[meeting]
        for meeting in range(len(base))
    ]
    return Alignment(statistics.median(differences), (max(differences) - min(differences)) / 2)


def _clock() -> str:
    """The same on all ranks whose clock is the same."""
    try:
        boot = BOOT.read_text().strip()
    except OSError:
        return f"of process {os.getpid()}"
    try:
        return f"{boot} {NAMESPACE.readlink()}"
    except OSError:
        return boot
