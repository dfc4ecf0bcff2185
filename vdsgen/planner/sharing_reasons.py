"""Why ranks share blocks or samples: what as many data ranks would do instead."""

from __future__ import annotations

from vdsgen.planner.again import best_candidate, changed
from vdsgen.planner.compare import compared
from vdsgen.planner.search import Candidate
from vdsgen.planner.space import layout_of
from vdsgen.planner.words import settings_words
from vdsgen.planner.workload import Workload

SHARED = {"tensor": "block", "sequence": "clip"}
"""What ranks of each kind share."""


def sharing_reasons(workload: Workload, winner: Candidate) -> list[str]:
    """One sentence for each kind of sharing that the plan has."""
    return [
        _reason(workload, winner, name)
        for name in SHARED
        if getattr(winner.settings, f"{name}_parallel_size") > 1
    ]


def _reason(workload: Workload, winner: Candidate, name: str) -> str:
    key, settings = f"{name}_parallel_size", winner.settings
    ranks = getattr(settings, key)
    told = f"{name.capitalize()} parallel size {ranks}"
    if getattr(workload.experiment.constraints, key) is not None:
        return f"{told} is pinned."
    other = layout_of(settings)._replace(data_parallel_size=settings.data_parallel_size * ranks, **{key: 1})
    training = workload.experiment.training
    if training.global_batch_size % other.data_parallel_size:
        return (
            f"{told}: a global batch of {training.global_batch_size} cannot be shared evenly between "
            f"{other.data_parallel_size} data ranks that each had every {SHARED[name]} to themselves."
        )
    best = best_candidate(_unpinned(workload), [other])
    if best is None:
        return f"{told}: with every {SHARED[name]} whole, {other} fits in no way."
    words = settings_words(best.settings, layout=False)
    return f"{told}: with every {SHARED[name]} whole, {other} at its best ({words}) {compared(best, winner)}."


def _unpinned(workload: Workload) -> Workload:
    """With the sizes let go that the other layout has of its own."""
    experiment = workload.experiment
    keys = ("data_parallel_size", "micro_batch_size", "gradient_accumulation_steps")
    constraints = experiment.constraints.model_copy(update=dict.fromkeys(keys))
    return changed(workload, experiment=experiment.model_copy(update={"constraints": constraints}))
