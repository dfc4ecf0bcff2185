"""Plans that no other beats in both memory and speed."""

from __future__ import annotations

from collections.abc import Sequence

from vdsgen.planner.search import Candidate


def pareto_front(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those that need less memory than everything faster, the fastest first."""
    front: list[Candidate] = []
    for one in sorted(candidates, key=lambda one: (one.time.step_seconds, one.placed.peak_bytes)):
        if not front or one.placed.peak_bytes < front[-1].placed.peak_bytes:
            front.append(one)
    return front


def front_first(winner: Candidate, candidates: Sequence[Candidate]) -> list[Candidate]:
    """The winner, the rest of the front of memory against speed, then the others by speed."""
    front = [one for one in pareto_front(candidates) if one is not winner]
    rest = sorted(
        (one for one in candidates if one is not winner and not any(one is other for other in front)),
        key=lambda one: (one.time.step_seconds, one.simplicity),
    )
    return [winner, *front, *rest]
