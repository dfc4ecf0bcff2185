"""Heartbeats of a run's ranks, and how old they are."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vdsgen.runs.values import one_line
from vdsgen.spec.heartbeat import DONE_PHASE, HEARTBEATS, Beat, beat_file, read_beat

MOST_RANKS = 100_000


@dataclass(frozen=True, slots=True)
class SeenBeat:
    beat: Beat
    written_at: float
    """Seconds since 1970, by the clock of whoever keeps the file."""


def read_beats(run: Path) -> dict[int, SeenBeat]:
    """By rank; {} where the run has shown none."""
    found: dict[int, SeenBeat] = {}
    try:
        names = os.listdir(run / HEARTBEATS)[:MOST_RANKS]  # noqa: PTH208
    except OSError:
        return found
    for name in names:
        number = name.removeprefix("rank_").removesuffix(".json")
        if not (number.isascii() and number.isdecimal()) or len(number) > 9:
            continue
        path = beat_file(run, int(number))
        with contextlib.suppress(OSError):
            status = path.stat()
            beat = read_beat(path) if path.is_file() and status.st_size < 2**20 else None
            if beat is not None and beat.rank == int(number):
                found[beat.rank] = SeenBeat(beat, status.st_mtime)
    return dict(sorted(found.items()))


def all_done(beats: Mapping[int, SeenBeat]) -> bool:
    """Nothing is left for any rank but to end."""
    return bool(beats) and all(seen.beat.phase == DONE_PHASE for seen in beats.values())


def newest(beats: Mapping[int, SeenBeat]) -> float | None:
    """When the last one was written."""
    return max((seen.written_at for seen in beats.values()), default=None)


def where_words(beat: Beat) -> str:
    """What the rank does, as a terminal may show it."""
    return one_line(beat.where(), 80)
