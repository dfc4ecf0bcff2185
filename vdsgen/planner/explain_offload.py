"""Why a plan keeps something outside its GPUs."""

from __future__ import annotations

from itertools import pairwise

from vdsgen.cost.settings import Settings
from vdsgen.planner.compare import outcome_words, what_if
from vdsgen.planner.search import Candidate
from vdsgen.planner.words import gib, offload_words, seconds
from vdsgen.planner.workload import Workload


def offload_reasons(workload: Workload, winner: Candidate) -> list[str]:
    """A sentence for each thing that is moved: what would become of the plan with it on the GPU."""
    settings = winner.settings
    back: list[tuple[str, Settings]] = []
    if settings.offload_parameters != "none":
        back.append(("offload_parameters", settings._replace(offload_parameters="none")))
    elif settings.offload_optimizer != "none":
        back.append(("offload_optimizer", settings._replace(offload_optimizer="none")))
    if settings.offload_activations:
        back.append(("offload_activations", settings._replace(offload_activations=False)))
    sentences = []
    for key, kept in back:
        moved = next(words for words in offload_words(settings) if words not in offload_words(kept))
        pinned = " (pinned)" if getattr(workload.experiment.constraints, key) is not None else ""
        outcome = outcome_words(what_if(workload, kept, settings), winner)
        sentences.append(f"{moved.capitalize()}{pinned}: on the GPU, the plan {outcome}.")
    if back:
        fullest = max(
            (
                workload.outside(settings, stage, start, stop).host_bytes
                for stage, (start, stop) in enumerate(pairwise(winner.placed.partition))
            ),
            default=0,
        )
        sentences.append(
            f"Moving it takes {seconds(winner.time.offload_seconds)} a step beside the GPU's work, and "
            f"{gib(fullest)} of host memory for each rank."
        )
    return sentences
