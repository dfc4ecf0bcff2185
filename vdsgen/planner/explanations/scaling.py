"""Why more GPUs or a pipeline are not faster, where they are not: speeds, and where seconds are lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from vdsgen.errors import InputError
from vdsgen.planner.again import best_candidate, changed
from vdsgen.planner.demands import whole_pool_layouts
from vdsgen.planner.explanations import changes
from vdsgen.planner.explanations.changes import LinkKey, link_of
from vdsgen.planner.explanations.families import unpinned_layout
from vdsgen.planner.explanations.loss import loss, spent
from vdsgen.planner.explanations.traffic import link_loads, link_words, sent_bytes
from vdsgen.planner.search import Candidate
from vdsgen.planner.space import Layout, layout_of
from vdsgen.planner.words import changed_words, settings_words
from vdsgen.planner.workload import Workload
from vdsgen.spec.explanations import Mend, ScalePoint, Scaling
from vdsgen.spec.lab import Pool

AIM = 0.9
"""Efficiency that a mend is to reach."""
MOST_TIMES = 16
"""How far the batch and the links are grown."""


class _Base(NamedTuple):
    """The fewest GPUs with a plan."""

    gpus: int
    best: Candidate

    def efficiency(self, candidate: Candidate) -> float:
        """Of a linear speed-up from here."""
        linear = candidate.settings.world_size / self.gpus * self.best.time.samples_per_second
        return candidate.time.samples_per_second / linear


def scaling(workload: Workload, winner: Candidate, named: Pool) -> Scaling:
    """Speeds of 1, 2, 4, ... GPUs to all, of every layout of all, and what would mend the plan and the best
    pipeline. Pins on layout and batch split are let go, but for the plan itself. `named` is the pool as the
    lab file gives it."""
    free = unpinned_layout(workload)
    counts = gpu_counts(workload)
    bests = {gpus: best for gpus in counts if (best := _best(part_of(free, gpus))) is not None}
    bests[winner.settings.world_size] = winner
    smallest = min(bests)
    base = _Base(smallest, bests[smallest])
    used = part_of(free, winner.settings.world_size)
    layouts = [best for layout in _layouts(used) if (best := best_candidate(used, [layout]))]
    pinned = winner.settings not in [best.settings for best in layouts]
    layouts = sorted([*layouts, *([winner] if pinned else [])], key=lambda one: one.time.step_seconds)
    points = [_point(part_of(free, gpus), bests[gpus], base, named) for gpus in sorted(bests)]
    return Scaling(
        base_gpus=base.gpus,
        aim_fraction=AIM,
        gpus_without_plan=tuple(gpus for gpus in counts if gpus not in bests),
        points=tuple(points),
        layouts=tuple(_point(used, best, base, named) for best in layouts),
        mends=tuple(_mends(used, base, winner, layouts)),
    )


def gpu_counts(workload: Workload) -> list[int]:
    """1, 2, 4, ... of one node; then 1, 2, 4, ... whole nodes; and all. Where nodes differ: all."""
    if workload.pool.groups is not None:
        return [workload.pool.world_size]
    per_node, nodes = workload.pool.gpus_per_node, workload.pool.nodes
    inside = {min(2**power, per_node) for power in range(per_node.bit_length() + 1)}
    return sorted(inside | {per_node * min(2**power, nodes) for power in range(nodes.bit_length() + 1)})


def part_of(workload: Workload, gpus: int) -> Workload:
    """So many GPUs of the pool, the others idle."""
    pool = workload.pool
    if gpus == pool.world_size or pool.groups is not None:
        return workload
    per_node = min(gpus, pool.gpus_per_node)
    part = {"gpus_per_node": per_node, "nodes": gpus // per_node, "hosts": None}
    return changed(workload, pool=pool.model_copy(update=part))


def _layouts(used: Workload) -> list[Layout]:
    """Of all GPUs of this workload; none where the batch cannot be shared over them."""
    try:
        return [one for one in whole_pool_layouts(used) if one.world_size == used.pool.world_size]
    except InputError:
        return []


def _best(used: Workload) -> Candidate | None:
    """The fastest plan of all GPUs of this workload, whatever the experiment's objective; None for none."""
    layouts = _layouts(used)
    return best_candidate(used, layouts) if layouts else None


def _point(workload: Workload, candidate: Candidate, base: _Base, named: Pool) -> ScalePoint:
    settings, time = candidate.settings, candidate.time
    volumes = sent_bytes(workload, candidate)
    loads = link_loads(workload, candidate)
    whole = spent(base.best.settings, base.best.time)
    return ScalePoint(
        gpus=settings.world_size,
        layout=str(layout_of(candidate.settings)),
        plan=settings_words(settings, layout=False),
        step_seconds=time.step_seconds,
        samples_per_second=time.samples_per_second,
        efficiency_fraction=base.efficiency(candidate),
        loss=loss(settings, time, whole, base.gpus / settings.world_size),
        links=tuple(link_words(candidate, load, volumes, named) for load in loads),
    )


def _mends(free: Workload, base: _Base, winner: Candidate, layouts: list[Candidate]) -> Iterator[Mend]:
    """For the plan and for the best pipeline, where they are below the aim."""
    pipelines = [one for one in layouts if one.settings.pipeline_parallel_size > 1]
    looked_at = dict.fromkeys(
        [layout_of(winner.settings), *(layout_of(one.settings) for one in pipelines[:1])]
    )
    by_layout = {layout_of(one.settings): one for one in [*layouts, winner]}
    for layout in looked_at:
        now = base.efficiency(by_layout[layout])
        if now >= AIM or base.gpus == layout.world_size:
            continue
        split = next((one for one in layouts if layout_of(one.settings) == layout), by_layout[layout])
        if base.efficiency(split) > now:
            words = changed_words(by_layout[layout].settings, split.settings)
            yield _mend(layout, f"{words}: the pins on the batch let go", base.efficiency(split))
        for words, change in _remedies(free):
            mend = _least_that_mends(free, layout, base, words, change)
            if mend is not None and mend.efficiency_fraction > now:
                yield mend


def _mend(layout: Layout, change: str, efficiency: float) -> Mend:
    return Mend(
        layout=str(layout),
        change=change,
        efficiency_fraction=efficiency,
        reaches_aim=efficiency >= AIM,
    )


def _remedies(workload: Workload) -> Iterator[tuple[str, Callable[[Workload, int], Workload]]]:
    """In words with {} for the factor, and how a workload is changed by it."""
    batch = workload.experiment.training.global_batch_size
    yield "global batch x {}", lambda one, factor: changes.with_global_batch(one, factor * batch)
    keys: tuple[tuple[LinkKey, str], ...] = (
        ("intra_node", "links in the node {} times as fast"),
        ("inter_node", "links between nodes {} times as fast"),
    )
    for key, words in keys:
        if link_of(workload, key) is not None:
            yield words, _faster(key)


def _faster(key: LinkKey) -> Callable[[Workload, int], Workload]:
    def change(one: Workload, factor: int) -> Workload:
        return one if link_of(one, key) is None else changes.with_faster_link(one, key, factor)

    return change


def _least_that_mends(
    free: Workload, layout: Layout, base: _Base, words: str, change: Callable[[Workload, int], Workload]
) -> Mend | None:
    """The smallest factor that reaches the aim, else the one that comes nearest; None where none is possible.
    The base is planned again too: a larger batch makes it faster as well."""
    best: Mend | None = None
    factor = 2
    while factor <= MOST_TIMES:
        small = _best(change(part_of(free, base.gpus), factor))
        large = best_candidate(change(free, factor), [layout])
        if small is not None and large is not None:
            mend = _mend(layout, words.format(factor), _Base(base.gpus, small).efficiency(large))
            if mend.reaches_aim:
                return mend
            if best is None or mend.efficiency_fraction > best.efficiency_fraction:
                best = mend
        factor *= 2
    return best
