"""Time and price to a solution: what a step's prediction means for the dataset and for the bill."""

from __future__ import annotations

from vdsgen.planner.search import Candidate
from vdsgen.planner.workload import Workload
from vdsgen.spec.plan import DatasetPass, Predicted

HOUR_SECONDS = 3600.0


def predicted(workload: Workload, candidate: Candidate) -> Predicted:
    """A candidate's figures. Start-up, saving and waiting for data that nobody measured are not in them."""
    figures = candidate.time.predicted()
    price = workload.price_per_hour(candidate.settings.world_size)
    clips = workload.experiment.data.clips
    dataset = None
    if clips is not None:
        seconds = clips / figures.samples_per_second
        cost = None if price is None else price * seconds / HOUR_SECONDS
        dataset = DatasetPass(clips=clips, seconds=seconds, price=cost)
    return figures.model_copy(update={"price_per_hour": price, "dataset": dataset})
