"""When nothing fits: the nearest miss, and what would make it fit."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

from pydantic import ValidationError

from vdsgen.cost.step_time import StepTime
from vdsgen.errors import InputError, NoPlanFitsError
from vdsgen.planner.demands import whole_pool_layouts
from vdsgen.planner.place import Miss, least_memory
from vdsgen.planner.search import Candidate, Search, search
from vdsgen.planner.words import gib, miss_words, rate, settings_words
from vdsgen.planner.workload import Workload
from vdsgen.spec.constraints import Constraints
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.lab import Pool
from vdsgen.units import GIB

MOST_TIMES_LARGER = 16
"""How far pools are grown, in doublings, before giving up."""


def no_fit_error(workload: Workload, found: Search) -> NoPlanFitsError:
    """The error to raise for a search that found nothing."""
    miss = nearest_miss(workload, found)
    pool = workload.pool
    head = f"no plan fits pool {pool.name} ({_gpus_words(workload)}): {found.candidates} candidates"
    if miss is None:
        refused = ", ".join(sorted(found.refused)) or "none"
        return NoPlanFitsError(
            f"{head}, all refused by rules ({refused})", remedy="leave out a pin that the rules name"
        )
    message = f"{head}, the nearest miss is {settings_words(miss.settings)}: it {miss_words(miss)}"
    if len(workload.sizes) > 1:
        message += f", decided by clips of {workload.largest_size(miss.settings, miss.stage, *miss.layers)}"
    return NoPlanFitsError(message, remedy="; or ".join(_remedies(workload, miss)))


def _gpus_words(workload: Workload) -> str:
    if workload.pool.groups is not None:
        return workload.gpus_text
    return f"{workload.pool.world_size} x {workload.gpu_name}, {gib(workload.capacity_bytes)} each"


def nearest_miss(workload: Workload, found: Search) -> Miss | None:
    """The candidate that lacks least, with its stages cut for memory alone."""
    misses = [tally.nearest_miss for tally in found.out_of_memory.values() if tally.nearest_miss is not None]
    if not misses:
        return None
    best = min(misses, key=lambda miss: miss.over_bytes)
    evened = least_memory(workload, best.settings)
    if best.shortage is not None:
        return best
    assert evened.over_bytes > 0, "a candidate that fits was counted as one that does not"
    return min(best, evened, key=lambda miss: miss.over_bytes)


def _remedies(workload: Workload, miss: Miss) -> Iterator[str]:
    yield from _without_pins(workload)
    yield from _without_buckets(workload)
    yield from _with_shorter_clips(workload)
    yield from _with_more_gpus(workload)
    yield from _with_waiting_saves(workload)
    if miss.shortage is not None:
        yield f"use nodes with {ceil(miss.shortage.needed_bytes / GIB)} GiB of {miss.shortage.resource}"
        return
    what = "a host" if workload.ranks_share_host_memory else "GPUs"
    yield f"use {what} with {_needed_gib(workload, miss)} GiB"


def _with_waiting_saves(workload: Workload) -> Iterator[str]:
    """Without copies in host memory of what is saved."""
    training = workload.experiment.training
    if training.saving.asynchronous:
        saving = training.saving.model_copy(update={"asynchronous": False})
        relaxed = workload.experiment.model_copy(
            update={"training": training.model_copy(update={"saving": saving})}
        )
        yield from _fits(workload, relaxed, workload.pool, "set training.saving.asynchronous: false")


def _without_pins(workload: Workload) -> Iterator[str]:
    """One pin left out at a time."""
    experiment = workload.experiment
    pins = experiment.constraints
    for key in Constraints.model_fields:
        if getattr(pins, key) is not None:
            relaxed = experiment.model_copy(update={"constraints": pins.model_copy(update={key: None})})
            yield from _fits(workload, relaxed, workload.pool, f"leave out constraints.{key}")
    if experiment.training.precision == "fp32":
        training = experiment.training.model_copy(update={"precision": "auto"})
        relaxed = experiment.model_copy(update={"training": training})
        yield from _fits(workload, relaxed, workload.pool, "set training.precision to auto")


def _without_buckets(workload: Workload) -> Iterator[str]:
    """One bucket left out at a time."""
    experiment, data = workload.experiment, workload.experiment.data
    for place, size in enumerate(data.buckets):
        fewer = (*data.buckets[:place], *data.buckets[place + 1 :])
        relaxed = experiment.model_copy(update={"data": data.model_copy(update={"buckets": fewer})})
        yield from _fits(workload, relaxed, workload.pool, f"leave {size} out of data.buckets")


def _with_shorter_clips(workload: Workload) -> Iterator[str]:
    """Half the frames, a quarter, and so on, where the latent codec takes them."""
    data = workload.experiment.data
    factor = data.latents.temporal_factor
    frames = data.frames
    while frames > 1:
        half = frames // 2
        frames = half if factor == 1 else 1 + (half - 1) // factor * factor
        try:
            shorter = type(data).model_validate({**data.model_dump(), "frames": frames})
        except ValidationError:
            return
        relaxed = workload.experiment.model_copy(update={"data": shorter})
        sentence = f"set data.frames to {frames} (now {data.frames})"
        outcome = list(_fits(workload, relaxed, workload.pool, sentence))
        if outcome:
            yield from outcome
            return


def _with_more_gpus(workload: Workload) -> Iterator[str]:
    """Twice the pool, four times, and so on."""
    pool, factor = workload.pool, 2
    if workload.ranks_share_host_memory:
        return  # more processes would only share the same memory
    if pool.groups is not None:
        return  # which of them to buy more of is nobody's guess
    while factor <= MOST_TIMES_LARGER:
        axis = "nodes" if pool.inter_node is not None else "gpus_per_node"
        size = getattr(pool, axis) * factor
        larger = pool.model_copy(update={axis: size, "hosts": None})
        outcome = list(_fits(workload, workload.experiment, larger, f"use {larger.world_size} GPUs"))
        if outcome:
            yield from outcome
            return
        factor *= 2


def _fits(workload: Workload, experiment: Experiment, pool: Pool, sentence: str) -> Iterator[str]:
    """The sentence with what then fits; nothing where nothing does."""
    changed = Workload(experiment, pool, workload.gpu_name, workload.profile)
    try:
        found = search(changed, whole_pool_layouts(changed))
    except InputError:
        return
    if found.ranked:
        yield f"{sentence}: {_words(found.ranked[0])} fits"


def _words(candidate: Candidate) -> str:
    time: StepTime = candidate.time
    return f"{settings_words(candidate.settings)}, {rate(time.samples_per_second)} samples/s,"


def _needed_gib(workload: Workload, miss: Miss) -> int:
    """Memory of a GPU (of a host that its ranks share) that the nearest miss would fit, whole GiB."""
    fraction = workload.pool.memory_reserve_fraction
    needed = float(miss.memory.peak_bytes)
    if fraction is not None and fraction < 1:
        needed = (miss.memory.peak_bytes - miss.memory.reserve_bytes) / (1 - fraction)
    ranks = workload.pool.gpus_per_node if workload.ranks_share_host_memory else 1
    return ceil(ranks * needed / GIB)
