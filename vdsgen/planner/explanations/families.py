"""The families that lost, by what people think in, each at its best: what it lacks, or how much slower.

A family is planned by itself: its layout alone is searched, or its setting is pinned. So its nearest miss is
the nearest of all its candidates, not of those one change away from the plan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from vdsgen.cost.settings import Settings
from vdsgen.errors import InputError
from vdsgen.planner.again import changed
from vdsgen.planner.choices.communication import communication_choices
from vdsgen.planner.compare import compared, slowest_part, what_if
from vdsgen.planner.demands import whole_pool_layouts
from vdsgen.planner.numerics import adds_up_inexactly
from vdsgen.planner.place import Miss
from vdsgen.planner.search import Candidate, Search, search
from vdsgen.planner.space import ZERO_STAGES, Layout, divisors, layout_of
from vdsgen.planner.words import communication_words, interval_words, miss_words, settings_words
from vdsgen.planner.workload import Workload
from vdsgen.spec.dtypes import Dtype
from vdsgen.spec.explanations import NearestMiss

DTYPES: tuple[Dtype, ...] = ("bf16", "fp16", "fp32")


class Family(NamedTuple):
    """Candidates that share what the winner does otherwise."""

    name: str
    workload: Workload
    layouts: tuple[Layout, ...] | None
    """None: all that the workload allows."""
    holds: Callable[[Settings], bool]
    """Whether a candidate is one of them: where a pin only opens a dimension."""


def nearest_misses(workload: Workload, winner: Candidate) -> Iterator[NearestMiss]:
    """One of each family that has a candidate."""
    for family in families(workload, winner.settings):
        found = nearest(family, winner)
        if found is not None:
            yield found
    for settings in communication_choices(workload, winner.settings):
        if settings != winner.settings and communication_words(settings):
            yield _varied(workload, settings, winner)


def families(workload: Workload, chosen: Settings) -> Iterator[Family]:
    """Those that differ from the chosen settings, pins or not: layouts, ZeRO stages, with and without
    checkpointing, micro-batches, offload, precision."""
    free = unpinned_layout(workload)
    for other in whole_pool_layouts(free):
        if other != layout_of(chosen):
            yield Family(str(other), free, (other,), _any)
    for stage in ZERO_STAGES:
        if stage != chosen.zero_stage:
            yield _pinned(workload, f"ZeRO-{stage}", _is("zero_stage", stage), zero_stage=stage)
    if chosen.activation_checkpoint_interval or any(chosen.stage_checkpoint_intervals):
        pins: dict[str, Any] = {"activation_checkpoint_interval": 0}
        if workload.experiment.constraints.offload_activations:
            pins["offload_activations"] = None
        yield _pinned(workload, "no checkpointing", _any, **pins)
        if workload.knows_selective(chosen.dtype):
            yield _other_recomputation(workload, chosen)
    else:
        yield _pinned(workload, interval_words(1), _any, activation_checkpoint_interval=1)
    yield from _micro_batches(workload, chosen)
    yield from _offloads(workload, chosen)
    for dtype in DTYPES:
        if dtype != chosen.dtype and workload.has_rate(dtype):
            training = workload.experiment.training.model_copy(update={"precision": dtype})
            experiment = workload.experiment.model_copy(update={"training": training})
            yield Family(dtype, changed(workload, experiment=experiment), None, _any)


def _other_recomputation(workload: Workload, chosen: Settings) -> Family:
    """Products recomputed too, or kept."""
    other: dict[str, Any] = {"recompute": "full"}
    if not chosen.stage_selective_layers:
        other = {
            "recompute": "selective",
            "activation_checkpoint_interval": None,
            "offload_activations": None,
        }
    name = f"{other['recompute']} recomputation"
    return _pinned(workload, name, lambda settings: settings.checkpoints, **other)


def _micro_batches(workload: Workload, chosen: Settings) -> Iterator[Family]:
    """The next smaller and the next larger that divide the global batch; accumulation steps follow."""
    sizes = divisors(workload.experiment.training.global_batch_size)
    smaller = [size for size in sizes if size < chosen.micro_batch_size][-1:]
    larger = [size for size in sizes if size > chosen.micro_batch_size][:1]
    for size in smaller + larger:
        yield _pinned(
            workload,
            f"micro-batch {size}",
            _is("micro_batch_size", size),
            micro_batch_size=size,
            gradient_accumulation_steps=None,
        )


def _offloads(workload: Workload, chosen: Settings) -> Iterator[Family]:
    """Optimizer states, parameters and activations kept elsewhere; or on the GPU, where the plan does not."""
    for key, what in (("offload_optimizer", "optimizer states"), ("offload_parameters", "parameters")):
        for place, words in (("none", "on the GPU"), ("cpu", "in host memory"), ("nvme", "on NVMe")):
            if getattr(chosen, key) != place and (place != "nvme" or workload.pool.nvme is not None):
                yield _pinned(workload, f"{what} {words}", _is(key, place), **{key: place})
    other = not chosen.offload_activations
    words = "activations kept on the host" if other else "activations on the GPU"
    yield _pinned(workload, words, _is("offload_activations", other), offload_activations=other)


def _pinned(workload: Workload, name: str, holds: Callable[[Settings], bool], **pins: Any) -> Family:
    experiment = workload.experiment
    constraints = experiment.constraints.model_copy(update=pins)
    other = changed(workload, experiment=experiment.model_copy(update={"constraints": constraints}))
    return Family(name, other, None, holds)


def unpinned_layout(workload: Workload) -> Workload:
    """Layout and batch split let go: what other layouts are searched with."""
    experiment = workload.experiment
    keys = (
        "pipeline_parallel_size", "data_parallel_size", "tensor_parallel_size", "sequence_parallel_size",
        "micro_batch_size", "gradient_accumulation_steps",
    )  # fmt: skip
    constraints = experiment.constraints.model_copy(update=dict.fromkeys(keys))
    return changed(workload, experiment=experiment.model_copy(update={"constraints": constraints}))


def _any(_settings: Settings) -> bool:
    return True


def _is(name: str, value: object) -> Callable[[Settings], bool]:
    return lambda settings: bool(getattr(settings, name) == value)


def nearest(family: Family, winner: Candidate) -> NearestMiss | None:
    """Its best beside the winner; None where no candidate of the family was looked at."""
    try:
        layouts = whole_pool_layouts(family.workload) if family.layouts is None else list(family.layouts)
    except InputError as error:
        messages = "; ".join(problem.message for problem in error.problems)
        return NearestMiss(family=family.name, outcome="refused", detail=f"is refused: {messages}")
    found = search(family.workload, layouts)
    fits = _by_time(family, found)
    exact = fits
    if not adds_up_inexactly(winner.settings) and any(adds_up_inexactly(one.settings) for one in fits):
        # A pin may ask for inexact sums; faster ones then end the search for others too early.
        exact = _by_time(family, search(family.workload, layouts, only_exact=True))
    if exact:
        return _slower(family.name, exact[0], winner)
    if fits:
        return _inexactly(family.name, fits[0], winner)
    miss = nearest_of(found, family.holds)
    return _too_large(family.name, miss) if miss else _refused(family, found)


def _by_time(family: Family, found: Search) -> list[Candidate]:
    held = (one for one in found.ranked if family.holds(one.settings))
    return sorted(held, key=lambda one: one.time.step_seconds)


def nearest_of(found: Search, holds: Callable[[Settings], bool] = _any) -> Miss | None:
    """The miss that lacks least."""
    misses = [tally.nearest_miss for tally in found.out_of_memory.values() if tally.nearest_miss]
    return min(
        (miss for miss in misses if holds(miss.settings)), key=lambda miss: miss.over_bytes, default=None
    )


def _slower(name: str, best: Candidate, winner: Candidate) -> NearestMiss:
    cause, longer = slowest_part(best.time, winner.time)
    words = compared(best, winner)
    if best.settings.dtype != winner.settings.dtype:
        words = words.replace("the simpler plan was taken", f"{winner.settings.dtype} comes first")
    return NearestMiss(
        family=name,
        outcome="slower",
        detail=f"at its best ({settings_words(best.settings)}) {words}",
        settings=best.settings.record(),
        peak_bytes=best.placed.peak_bytes,
        extra_seconds=best.time.step_seconds - winner.time.step_seconds,
        cause=cause,
        cause_seconds=longer,
    )


def _inexactly(name: str, best: Candidate, winner: Candidate) -> NearestMiss:
    missed = _slower(name, best, winner)
    words = f"{missed.detail}, and adds up several micro-batches' gradients in bf16"
    return missed.model_copy(update={"outcome": "inexact_sums", "detail": words})


def _too_large(name: str, miss: Miss) -> NearestMiss:
    return NearestMiss(
        family=name,
        outcome="out_of_memory",
        detail=f"fits in no way: nearest ({settings_words(miss.settings)}) it {miss_words(miss)}",
        settings=miss.settings.record(),
        missing_bytes=miss.over_bytes,
        stage=miss.stage,
        component=miss.biggest_component,
    )


def _refused(family: Family, found: Search) -> NearestMiss | None:
    for rule_id, tally in sorted(found.refused.items()):
        assert tally.violation is not None and tally.settings is not None
        if family.holds(tally.settings):
            return NearestMiss(
                family=family.name,
                outcome="refused",
                detail=f"is refused: {tally.violation.message} (rule {rule_id})",
                settings=tally.settings.record(),
            )
    if found.inexact_sums and family.holds is _any:
        return NearestMiss(
            family=family.name,
            outcome="inexact_sums",
            detail="would add up several micro-batches' gradients in bf16",
        )
    return None


def _varied(workload: Workload, settings: Settings, winner: Candidate) -> NearestMiss:
    """The plan with another way of communicating."""
    name, outcome = communication_words(settings), what_if(workload, settings, winner.settings)
    if isinstance(outcome, str):
        return NearestMiss(family=name, outcome="refused", detail=outcome, settings=settings.record())
    return _too_large(name, outcome) if isinstance(outcome, Miss) else _slower(name, outcome, winner)
