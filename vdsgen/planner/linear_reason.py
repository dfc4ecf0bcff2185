"""What linear layers in 8 bits bring a plan, and what they cost its numerics; one sentence."""

from __future__ import annotations

from vdsgen.planner.compare import Outcome, outcome_words, what_if
from vdsgen.planner.search import SIMPLER_WITHIN, Candidate
from vdsgen.planner.words import percent, seconds
from vdsgen.planner.workload import Workload
from vdsgen.spec.linear_precision import EightBit

SIGNIFICANT_BITS: dict[EightBit, int] = {"fp8": 4, "int8": 8}
"""Of an operand: of e4m3 one before the point and three behind it; of int8 all, sign included, in its row's
largest."""


def linear_reason(workload: Workload, winner: Candidate) -> str:
    """The sentence; empty where they are exact."""
    kind = workload.experiment.training.linear_precision
    if kind == "exact":
        return ""
    dtype = winner.settings.dtype
    exact = what_if(exactly(workload), winner.settings, winner.settings)
    how = "emulated here: " if not workload.multiplies_in(kind, dtype) else ""
    lacks = f"{workload.gpu_name} has no {kind} products for {dtype}; " if how else ""
    return (
        f"Linear layers of blocks multiply in {kind}, {how}{lacks}in {dtype} this plan "
        f"{_words(exact, winner)}. Operands keep {SIGNIFICANT_BITS[kind]} significant bits: losses "
        f"and gradients are near those of {dtype}, and not the same (docs/low_precision.md)."
    )


def _words(exact: Outcome, winner: Candidate) -> str:
    if not isinstance(exact, Candidate):
        return outcome_words(exact, winner)
    step = exact.time.step_seconds
    if abs(step / winner.time.step_seconds - 1) > SIMPLER_WITHIN:
        return outcome_words(exact, winner)
    return f"takes {seconds(step)} a step, as long within {percent(SIMPLER_WITHIN)}"


def exactly(workload: Workload) -> Workload:
    """The same, with exact linear layers."""
    training = workload.experiment.training.model_copy(update={"linear_precision": "exact"})
    experiment = workload.experiment.model_copy(update={"training": training})
    return Workload(experiment, workload.pool, workload.gpu_name, workload.profile, workload.kind_names)
