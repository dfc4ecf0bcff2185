"""What binds a plan: what twice as much of each resource would win.

Quick answers time this plan as it is (`quick_bindings`), so a resource wins at least so much; `bindings`
plans again with each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from vdsgen.cost.settings import Settings
from vdsgen.planner.again import best_candidate
from vdsgen.planner.compare import if_faster
from vdsgen.planner.explain import fullest_stage
from vdsgen.planner.explanations import changes
from vdsgen.planner.explanations.loss import bubble_of
from vdsgen.planner.explanations.traffic import link_loads, link_words, sent_bytes
from vdsgen.planner.search import Candidate
from vdsgen.planner.space import divisors
from vdsgen.planner.words import gib, moment_words, percent, seconds
from vdsgen.planner.workload import Workload
from vdsgen.spec.explanations import Binding, Resource
from vdsgen.spec.lab import Pool

TWICE = 2.0


class _Asked(NamedTuple):
    """One resource: who uses it, the workload with twice as much, and this plan there."""

    resource: Resource
    detail: str
    workload: Workload | None
    """None: planning again tells nothing more."""
    quick: Callable[[Workload], float]
    """Samples a second of this plan, or of one next to it, with twice as much."""


def quick_bindings(workload: Workload, winner: Candidate, named: Pool) -> tuple[Binding, ...]:
    """By timing this plan on more. `named` is the pool as the lab file gives it."""
    return _sorted(_bindings(workload, winner, named, again=False))


def bindings(workload: Workload, winner: Candidate, named: Pool) -> tuple[Binding, ...]:
    """By planning again with more."""
    return _sorted(_bindings(workload, winner, named, again=True))


def _sorted(found: Iterator[Binding]) -> tuple[Binding, ...]:
    return tuple(sorted(found, key=lambda one: -one.gain_fraction))


def _bindings(workload: Workload, winner: Candidate, named: Pool, *, again: bool) -> Iterator[Binding]:
    now = winner.time.samples_per_second
    for asked in _asked(workload, winner, named, again=again):
        more = asked.workload or workload
        then = asked.quick(more)
        planned_again = again and asked.workload is not None
        if planned_again:
            best = best_candidate(more)
            then = max(then, best.time.samples_per_second if best else 0.0)
        yield Binding(
            resource=asked.resource,
            detail=asked.detail,
            samples_per_second=then,
            gain_fraction=then / now - 1,
            planned_again=planned_again,
        )


def _asked(workload: Workload, winner: Candidate, named: Pool, *, again: bool) -> Iterator[_Asked]:
    def timed(more: Workload) -> float:
        return more.times.step(winner.settings, winner.placed.partition).samples_per_second

    yield _Asked("gpu_speed", _speed_detail(winner), changes.with_gpu_speed(workload, TWICE), timed)
    memory = changes.with_gpu_memory(workload, TWICE * changes.memory_gib(workload))
    yield _Asked(
        "gpu_memory", _memory_detail(workload, winner), memory, lambda more: _fastest_neighbour(more, winner)
    )
    volumes = sent_bytes(workload, winner)
    for load in link_loads(workload, winner):
        faster = changes.with_faster_link(workload, load.link, TWICE)
        yield _Asked(load.link, link_words(winner, load, volumes, named), faster, timed)
    batch = workload.experiment.training.global_batch_size
    twice = changes.with_global_batch(workload, int(TWICE) * batch)
    yield _Asked("global_batch", _batch_detail(winner), twice, lambda more: _larger_batch(more, winner))
    if winner.settings.pipeline_parallel_size > 1:
        yield _balanced(workload, winner)
    offloads = _uses_the_host(winner)
    if offloads or (again and not workload.ranks_share_host_memory):
        host = changes.with_host_memory(workload, TWICE * workload.pool.host_memory_gib)
        there = f"{workload.pool.host_memory_gib:g} GiB in each node"
        detail = f"{there} hold what is offloaded" if offloads else f"{there}, nothing is offloaded"
        yield _Asked("host_memory", detail, host, timed)


def _uses_the_host(winner: Candidate) -> bool:
    settings = winner.settings
    places = (settings.offload_optimizer, settings.offload_parameters)
    return settings.offload_activations or places != ("none", "none")


def _balanced(workload: Workload, winner: Candidate) -> _Asked:
    """Stages are made of whole layers: what equal ones would win."""
    lost = bubble_of(winner.settings, winner.time).imbalance_seconds
    times = [stage.busy_seconds for stage in winner.time.stages]
    longest = max(range(len(times)), key=lambda stage: times[stage])
    over = times[longest] / (sum(times) / len(times)) - 1
    detail = (
        f"{workload.blocks} blocks on {len(times)} stages: stage {longest} takes {percent(over)} longer than "
        f"the mean, and others wait {seconds(lost)} a step for longer ones"
    )
    then = winner.time.samples / (winner.time.step_seconds - lost)
    return _Asked("blocks", detail, None, lambda _: then)


def _fastest_neighbour(more: Workload, winner: Candidate) -> float:
    """Samples a second of the fastest plan one change away: without checkpointing, less ZeRO, another
    micro-batch, or without offload."""
    settings = winner.settings
    share = settings.micro_batch_size * settings.gradient_accumulation_steps
    without = settings.with_interval(0)._replace(offload_activations=False)
    neighbours = [settings, without]
    if settings.zero_stage:
        neighbours.append(settings._replace(zero_stage=settings.zero_stage - 1))
    neighbours.append(settings._replace(offload_optimizer="none", offload_parameters="none"))
    neighbours += [
        one._replace(micro_batch_size=micro, gradient_accumulation_steps=share // micro)
        for one in neighbours[:2]
        for micro in divisors(share)
        if micro != settings.micro_batch_size
    ]
    return _fastest(more, dict.fromkeys(neighbours), winner)


def _larger_batch(more: Workload, winner: Candidate) -> float:
    """Twice the accumulation steps, or twice the micro-batch; this plan's speed where neither works."""
    settings = winner.settings
    larger = [
        settings._replace(gradient_accumulation_steps=2 * settings.gradient_accumulation_steps),
        settings._replace(micro_batch_size=2 * settings.micro_batch_size),
    ]
    return _fastest(more, larger, winner)


def _fastest(more: Workload, tried: Iterable[Settings], winner: Candidate) -> float:
    """Samples a second of the fastest of these and of the winner."""
    best = winner.time.samples_per_second
    for settings in tried:
        samples = (
            settings.micro_batch_size * settings.gradient_accumulation_steps * settings.data_parallel_size
        )
        faster = if_faster(more, settings, winner.settings, samples / best)
        if faster is not None:
            best = max(best, faster.time.samples_per_second)
    return best


def _speed_detail(winner: Candidate) -> str:
    time = winner.time
    detail = f"forward and backward take {percent(time.compute_seconds / time.step_seconds)} of the step"
    if time.recompute_seconds:
        detail += f", recomputation {percent(time.recompute_seconds / time.step_seconds)}"
    return detail


def _memory_detail(workload: Workload, winner: Candidate) -> str:
    stage, start, stop = fullest_stage(workload, winner)
    capacity = workload.capacity_of(winner.settings, stage)
    peak = workload.memory(winner.settings, stage, start, stop).peak_bytes
    moment = workload.timeline(winner.settings, stage, start, stop).peak().spec()
    return f"stage {stage} needs {gib(peak)} of {gib(capacity)}, most {moment_words(moment)}"


def _batch_detail(winner: Candidate) -> str:
    settings, time = winner.settings, winner.time
    count, size = settings.gradient_accumulation_steps, settings.micro_batch_size
    detail = f"each data rank has {count} micro-batch{'es' if count > 1 else ''} of {size}"
    if settings.pipeline_parallel_size == 1:
        return detail
    bubble = bubble_of(settings, time).filling_seconds
    return (
        f"{detail} for {settings.pipeline_parallel_size} stages: filling and draining take "
        f"{seconds(bubble)}, {percent(bubble / time.step_seconds)} of the step"
    )
