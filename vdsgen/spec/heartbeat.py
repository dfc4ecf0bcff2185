"""What a rank shows of itself while it runs, in a file of its own that launching reads."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

HEARTBEATS = "heartbeats"
"""Folder of a run directory: a file a rank, of the start that runs."""
BEAT_SECONDS = 1.0
"""Between two beats of a rank."""
STEP_PHASE = "step"
"""What a rank is in as long as it makes an optimizer step."""
DONE_PHASE = "done"
"""The last one: nothing is left but to end."""
WAITING = frozenset({"waits", "bubble", "transfer", "reduce", "gather"})
"""Activities of a step in which a rank needs others (vdsgen.model.monitoring.clock)."""
LONGEST_TEXT = 200


@dataclass(frozen=True, slots=True)
class Beat:
    """One rank, as of its last beat."""

    rank: int
    pid: int
    host: str
    launch: str
    """Which launch started it; empty where that did not reach the rank."""
    tick: int
    """Counts beats: stands still where the process is stopped, or its interpreter is held."""
    phase: str
    """What the rank does, in words; the same words for the same thing."""
    begun: int
    """Phases begun so far. All ranks go through the same ones in the same order."""
    step: int
    """The optimizer step of the phase, from 1; 0: before the first."""
    activity: str
    """What a step's time goes to at the moment; empty outside of steps."""
    changes: int
    """Counts whatever shows that the rank comes on within its phase."""
    longest_seconds: Mapping[str, float] = field(default_factory=dict)
    """The longest that each phase has taken on this rank, those that have ended; the first one of a kind
    counts only until there is another."""

    @property
    def position(self) -> tuple[int, int]:
        """Changes when the rank comes on."""
        return self.begun, self.changes

    def text(self) -> str:
        return json.dumps(asdict(self) | {"longest_seconds": dict(self.longest_seconds)}) + "\n"

    def where(self) -> str:
        """`step 12 (backward)`, `saving a checkpoint (step 12)`."""
        if self.phase == STEP_PHASE:
            return f"step {self.step}" + (
                f" ({_ACTIVITY_WORDS.get(self.activity, self.activity)})" if self.activity else ""
            )
        return self.phase + (f" (step {self.step})" if self.step else "")


_ACTIVITY_WORDS = {
    "waits": "waiting for another stage",
    "bubble": "waiting for another stage",
    "transfer": "exchange with another stage",
    "reduce": "gradients between ranks",
    "gather": "parameters between ranks",
    "data": "clips",
    "other": "between computations",
}


def beat_file(run: Path, rank: int) -> Path:
    return run / HEARTBEATS / f"rank_{rank:05d}.json"


def read_beat(path: Path) -> Beat | None:
    """None where there is none yet, or it is half written, or is no beat at all."""
    try:
        values: Any = json.loads(path.read_bytes())
        beat = Beat(**values)
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    return beat if _is_sound(beat) else None


def _is_sound(beat: Beat) -> bool:
    numbers = (beat.rank, beat.pid, beat.tick, beat.begun, beat.step, beat.changes)
    texts = (beat.host, beat.launch, beat.phase, beat.activity)
    return (
        all(type(number) is int and number >= 0 for number in numbers)
        and all(isinstance(text, str) and len(text) <= LONGEST_TEXT and text.isprintable() for text in texts)
        and isinstance(beat.longest_seconds, dict)
        and all(
            isinstance(seconds, int | float) and math.isfinite(seconds)
            for seconds in beat.longest_seconds.values()
        )
    )
