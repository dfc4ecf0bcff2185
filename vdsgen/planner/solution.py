"""Time and price to a solution: what a step's prediction means for the dataset and for the bill."""

from __future__ import annotations

from vdsgen.planner.objective import cost_per_sample
from vdsgen.planner.search import Candidate
from vdsgen.planner.words import percent, rate
from vdsgen.planner.workload import Workload
from vdsgen.spec.experiment import Objective
from vdsgen.spec.plan import DatasetPass, Plan, Predicted

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


def objective_words(plan: Plan, objective: Objective) -> str:
    """What a plan reaches of what is asked for: what pools are compared by."""
    speed = f"{rate(plan.predicted.samples_per_second)} samples/s"
    gpus = plan.parallel.world_size
    if objective == "cost":
        cost = cost_per_sample(plan)
        if cost is not None:
            return f"{1000 * cost:.3g} for 1,000 samples, {speed}"
        return f"{gpus / plan.predicted.samples_per_second:.3g} GPU-seconds a sample, {speed}"
    if objective == "fewest_gpus":
        return f"{gpus} {'GPU' if gpus == 1 else 'GPUs'}, {speed}"
    if objective == "memory_headroom":
        fullest = max(stage.memory.peak_bytes / stage.capacity_bytes for stage in plan.stages)
        return f"{percent(1 - fullest)} of the fullest GPU free, {speed}"
    return speed
