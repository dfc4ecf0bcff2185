"""One candidate beside the winner: what would become of other settings, and how much slower they are."""

from __future__ import annotations

from vdsgen.cost.settings import Settings
from vdsgen.cost.step_time import StepTime
from vdsgen.planner.facts import facts
from vdsgen.planner.numerics import adds_up_inexactly
from vdsgen.planner.parts import PARTS as PARTS
from vdsgen.planner.place import Miss, Placed, place, place_faster
from vdsgen.planner.search import SIMPLER_WITHIN, Candidate
from vdsgen.planner.words import miss_words, percent, seconds
from vdsgen.planner.workload import Workload
from vdsgen.rules.registry import forbidding_rules
from vdsgen.rules.rule import violations

Outcome = str | Miss | Candidate
"""What becomes of settings: a rule's message, what does not fit, or a timed candidate."""


def compared(other: Candidate, winner: Candidate) -> str:
    """Speed of a candidate that lost, relative to the winner: a verb and what follows."""
    extra = other.time.step_seconds / winner.time.step_seconds - 1
    takes = f"takes {seconds(other.time.step_seconds)} a step"
    if extra < -SIMPLER_WITHIN:
        return f"{takes}, {percent(-extra)} less"
    if extra <= SIMPLER_WITHIN:
        return f"{takes}, as long within {percent(SIMPLER_WITHIN)}; the simpler plan was taken"
    cause, longer = slowest_part(other.time, winner.time)
    return f"{takes}, {percent(extra)} longer: {cause} takes {seconds(longer)} more"


def slowest_part(time: StepTime, other: StepTime) -> tuple[str, float]:
    """The part of a step that takes most longer than in another, and how many seconds."""
    mine, theirs = time.split(), other.split()
    longer = {words: getattr(mine, key) - getattr(theirs, key) for key, words in PARTS.items()}
    cause = max(longer, key=lambda words: longer[words])
    return cause, longer[cause]


def what_if(workload: Workload, settings: Settings, beside: Settings) -> Outcome:
    """Checks, places and times these settings, as another choice than `beside`."""
    refusal = _refusal(workload, settings, beside)
    if refusal is not None:
        return refusal
    placed = place(workload, settings)
    return placed if isinstance(placed, Miss) else _timed(workload, placed)


def if_faster(
    workload: Workload, settings: Settings, beside: Settings, than_seconds: float
) -> Candidate | None:
    """What there is of these settings, another choice than `beside`, where a step may take less than so
    long; None where they are refused, do not fit, or are seen to be slower."""
    if _refusal(workload, settings, beside) is not None:
        return None
    placed = place_faster(workload, settings, than_seconds)
    return None if placed is None else _timed(workload, placed)


def _refusal(workload: Workload, settings: Settings, beside: Settings) -> str | None:
    broken = violations(facts(workload, settings), forbidding_rules())
    if broken:
        return f"is refused: {broken[0].message}"
    if adds_up_inexactly(settings) and not adds_up_inexactly(beside):
        return "would add up several micro-batches' gradients in bf16"
    return None


def _timed(workload: Workload, placed: Placed) -> Candidate:
    return Candidate(placed, workload.times.step(placed.settings, placed.partition))


def outcome_words(outcome: Outcome, winner: Candidate) -> str:
    """An outcome beside the winner: a verb and what follows."""
    if isinstance(outcome, str):
        return outcome
    return miss_words(outcome) if isinstance(outcome, Miss) else compared(outcome, winner)
