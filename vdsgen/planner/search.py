"""The search: every candidate is refused by a rule, does not fit, is surely slower, or is timed.

Settings variants are taken in the order of a bound on their time (bounds.py); the boundaries and the
checkpoint intervals of each are the best there are (boundaries.py, stages.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

from vdsgen.cost.settings import Settings
from vdsgen.cost.step_time import StepTime
from vdsgen.planner.boundaries import TooSlow
from vdsgen.planner.bounds import LayoutBounds, settings_bound
from vdsgen.planner.buckets import fitted_buckets, with_small_buckets
from vdsgen.planner.legality import Legality
from vdsgen.planner.numerics import adds_up_inexactly, dtypes, sets_aside
from vdsgen.planner.place import Miss, Placed, fastest, nearest_to_fitting, spread
from vdsgen.planner.space import ZERO_STAGES, Family, Layout, batch_splits, families, intervals
from vdsgen.planner.stages import Stages
from vdsgen.planner.workload import Workload
from vdsgen.rules.rule import Violation

SIMPLER_WITHIN = 0.01
"""A simpler plan is taken where it is at most this much slower: the time model is no better than that."""

Progress = Callable[[int, int], None]
"""progress(done, of): layouts."""


class Candidate(NamedTuple):
    """A plan that fits, timed."""

    placed: Placed
    time: StepTime

    @property
    def settings(self) -> Settings:
        return self.placed.settings

    @property
    def simplicity(self) -> tuple[int, ...]:
        """No idle GPUs, nothing offloaded, less pipeline, fewer ranks to a block and to a sample, less
        ZeRO, exact communication and activations, no checkpointing; then the emptier GPU. Smaller is
        simpler."""
        settings = self.settings
        return (
            -settings.world_size,
            settings.offloaded_parts,
            settings.pipeline_parallel_size,
            settings.tensor_parallel_size,
            settings.sequence_parallel_size,
            settings.zero_stage,
            settings.communication_changes + settings.packs,
            int(settings.checkpoints),
            self.placed.peak_bytes,
            settings.micro_batch_size,
            settings.activation_checkpoint_interval,
        )


@dataclass(slots=True)
class Tally:
    """Candidates of one kind that lost: how many, and the one that came nearest."""

    count: int = 0
    nearest_miss: Miss | None = None
    fastest: Candidate | None = None
    violation: Violation | None = None
    settings: Settings | None = None


@dataclass(slots=True)
class Search:
    """What a search found. `candidates` is the sum of all counts."""

    layouts: tuple[Layout, ...]
    """Of the most GPUs that are searched; those of fewer are in `smaller`."""
    candidates: int = 0
    feasible: int = 0
    timed: int = 0
    """Partitions that were run through the pipeline's schedule."""
    ranked: list[Candidate] = field(default_factory=list)
    """The winner first, then by speed; at most two of each settings variant (with and without checkpointing),
    those left out that are surely slower."""
    refused: dict[str, Tally] = field(default_factory=dict)
    """By the id of the rule."""
    inexact_sums: int = 0
    """Set aside because gradients of several micro-batches would add up in bf16."""
    out_of_memory: dict[int, Tally] = field(default_factory=dict)
    """By pipeline parallel size."""
    fitting: dict[int, Tally] = field(default_factory=dict)
    """By pipeline parallel size: counts of those placed, and the fastest."""
    surely_slower: dict[int, int] = field(default_factory=dict)
    """By pipeline parallel size: candidates whose bound is no better than the best plan of that size (or
    than the best two of the winner's); whether they fit was mostly not asked."""
    smaller: Tally = field(default_factory=Tally)
    """Candidates of fewer GPUs, whatever became of them, and the fastest where it was worth timing."""


class _Bounded(NamedTuple):
    """A settings variant that no rule forbids."""

    bound: float
    order: int
    family: Family


class _Searching:
    """A search under way."""

    def __init__(
        self,
        workload: Workload,
        *,
        exact_sums: bool,
        only_exact: bool = False,
        time_all: bool = False,
        by_gpu_seconds: bool = False,
    ) -> None:
        self.workload = workload
        self.legality = Legality(workload)
        self.exact_sums = exact_sums
        self.only_exact = only_exact
        self.by_gpu_seconds = by_gpu_seconds
        self.time_all = time_all
        self.result = Search(layouts=())
        self.found: list[Candidate] = []
        self.fastest = inf
        """Step of the fastest candidate of all GPUs."""
        self.best_two: dict[int, list[float]] = {}
        """By pipeline parallel size: the two shortest steps of all GPUs."""
        self.hopeless: dict[Settings, int] = {}
        """The smallest micro-batch that did not fit, by what else there is."""

    def worth_idling(self, gpus: int) -> float:
        """What a step of so many GPUs may take where there are more: less than one of all of them by more
        than simplicity is worth, and within that of the best known. By GPU-seconds: within that of the
        best."""
        smaller = self.result.smaller.fastest
        if self.by_gpu_seconds:
            best = min((self.value(one) for one in self.found), default=inf)
            return best * (1 + SIMPLER_WITHIN) / gpus
        best = self.fastest if smaller is None else min(self.fastest, smaller.time.step_seconds)
        return min(self.fastest / (1 + SIMPLER_WITHIN), best * (1 + SIMPLER_WITHIN))

    def value(self, candidate: Candidate) -> float:
        """What is to be least."""
        gpus = candidate.settings.world_size if self.by_gpu_seconds else 1
        return gpus * candidate.time.step_seconds

    def whole_pool(self, layout: Layout) -> None:
        """All candidates of a layout: for sure those among the two best of its pipeline size, and what may
        win."""
        result, stages = self.result, layout.pipeline_parallel_size
        missed = result.out_of_memory.setdefault(stages, Tally())
        fitting = result.fitting.setdefault(stages, Tally())
        best_two = self.best_two.setdefault(stages, [])
        variants = self._variants(layout)
        for place, variant in enumerate(variants):
            give_up_at = self._worth_timing(best_two)
            if variant.bound > give_up_at:
                left = sum(len(one.family.intervals) for one in variants[place:])
                result.surely_slower[stages] = result.surely_slower.get(stages, 0) + left
                break
            for one in self._placed(variant.family, missed, fitting, give_up_at):
                candidate = Candidate(one, self.workload.times.step(one.settings, one.partition))
                self.found.append(candidate)
                self.fastest = min(self.fastest, candidate.time.step_seconds)
                best_two[:] = sorted([*best_two, candidate.time.step_seconds])[:2]
                if fitting.fastest is None or _faster(candidate, fitting.fastest):
                    fitting.fastest = candidate

    def _worth_timing(self, best_two: list[float]) -> float:
        """What a step may take of a pipeline size whose two best steps are known: as long as its best; where
        that is among the fastest of all, as long as anything that may be taken for simplicity, or the second
        best."""
        if self.time_all or not best_two:
            return inf
        if best_two[0] > min(self.fastest, best_two[0]) * (1 + SIMPLER_WITHIN):
            return best_two[0]
        if len(best_two) < 2:
            return inf
        return max(best_two[0] * (1 + SIMPLER_WITHIN), best_two[1])

    def part_pool(self, layout: Layout, bound: float) -> None:
        """Only candidates that win by more than simplicity is worth."""
        smaller = self.result.smaller
        if bound > self.worth_idling(layout.world_size):
            self._count(layout)
            return
        inner = _Searching(self.workload, exact_sums=self.exact_sums, only_exact=self.only_exact)
        inner.legality = self.legality
        missed, fitting = Tally(), Tally()
        for variant in inner._variants(layout):
            give_up_at = self.worth_idling(layout.world_size)
            if variant.bound > give_up_at:
                break
            for one in inner._placed(variant.family, missed, fitting, give_up_at):
                candidate = Candidate(one, self.workload.times.step(one.settings, one.partition))
                self.found.append(candidate)
                if smaller.fastest is None or _faster(candidate, smaller.fastest):
                    smaller.fastest = candidate
        smaller.count += inner.result.candidates
        self.result.candidates += inner.result.candidates
        self.result.timed += inner.result.timed

    def _count(self, layout: Layout) -> None:
        """Candidates of a layout that is surely slower, without what offload and communication may vary."""
        training, pins = self.workload.experiment.training, self.workload.experiment.constraints
        splits = batch_splits(self.workload, layout)
        count = len(splits) * len(dtypes(training, self.workload.pool))
        count *= len(ZERO_STAGES) if pins.zero_stage is None else 1
        count *= len(intervals(self.workload, layout.pipeline_parallel_size, pins))
        self.result.smaller.count += count
        self.result.candidates += count

    def _variants(self, layout: Layout) -> list[_Bounded]:
        """What rules leave, in the order of a bound on its time."""
        result = self.result
        found: list[_Bounded] = []
        for order, family in enumerate(families(self.workload, [layout])):
            settings, count = family.settings, len(family.intervals)
            result.candidates += count
            broken = self.legality.broken(family.at(family.intervals[-1]))
            if broken is not None:
                tally = result.refused.setdefault(broken.rule.id, Tally(violation=broken, settings=settings))
                tally.count += count
            elif (self.exact_sums and sets_aside(self.workload.experiment, settings)) or (
                self.only_exact and adds_up_inexactly(settings)
            ):
                result.inexact_sums += count
            else:
                least = family.at(family.intervals[0])
                found.append(_Bounded(settings_bound(self.workload, least), order, family))
        return sorted(found)

    def _placed(self, family: Family, missed: Tally, fitting: Tally, give_up_at: float) -> Iterable[Placed]:
        """The best of a variant, and the best of it without checkpointing where that is slower.

        Its plain candidate, and all that recompute together, are each counted once: as fitting, as missed, or
        (what recomputes everywhere where nothing need) as surely slower.
        """
        settings, tried, slower = family.settings, family.intervals, self.result.surely_slower
        stages = settings.pipeline_parallel_size
        again = [interval for interval in tried if interval > 0]
        has_plain = 0 in tried
        key = self._alike(settings)
        if key is not None and self.hopeless.get(key, inf) <= settings.micro_batch_size:
            missed.count += len(tried)
            return []
        best = self._fastest(settings, has_plain, bool(again), give_up_at)
        if best is None and (smaller := with_small_buckets(settings)) is not None:
            best = self._fastest(smaller, has_plain, bool(again), give_up_at)
            settings = smaller if best is not None else settings
        if best is None:
            missed.count += len(tried)
            self._miss(missed, nearest_to_fitting(self.workload, settings, tried))
            if key is not None:
                self.hopeless[key] = settings.micro_batch_size
            return []
        self.result.timed += best.timed
        if isinstance(best, TooSlow):
            slower[stages] = slower.get(stages, 0) + len(tried)
            return []
        if not best.settings.checkpoints and settings.packs:  # the same as with nothing packed
            slower[stages] = slower.get(stages, 0) + len(tried)
            return []
        if not best.settings.checkpoints:
            fitting.count += 1
            slower[stages] = slower.get(stages, 0) + len(again)
            return [best, *self._recomputing(settings, again)] if self.time_all else [best]
        fitting.count += len(again)
        if not has_plain:
            return [best]
        plain = self._fastest(settings, True, False, give_up_at)
        if plain is None:
            missed.count += 1
            self._miss(missed, nearest_to_fitting(self.workload, settings, (0,)))
            return [best]
        self.result.timed += plain.timed
        if isinstance(plain, TooSlow):
            slower[stages] = slower.get(stages, 0) + 1
            return [best]
        fitting.count += 1
        return [best, plain]

    def _alike(self, settings: Settings) -> Settings | None:
        """What variants have in common of which larger micro-batches need more memory: all stages then hold
        as many micro-batches, and more follow. None where memory may fall with larger micro-batches, since
        gradients come while activations go."""
        if settings.gradient_accumulation_steps <= settings.pipeline_parallel_size:
            return None
        return settings._replace(micro_batch_size=1, gradient_accumulation_steps=1)

    def _fastest(
        self, settings: Settings, plain: bool, recomputed: bool, give_up_at: float = inf
    ) -> Placed | TooSlow | None:
        pinned = self.workload.experiment.constraints.activation_checkpoint_interval
        stages = Stages(self.workload, settings, plain=plain, recomputed=recomputed, interval=pinned)
        return fastest(stages, give_up_at)

    def _recomputing(self, settings: Settings, again: Sequence[int]) -> list[Placed]:
        """A variant that need not recompute, with all stages doing so: slower, and emptier."""
        if not again:
            return []
        placed = self._fastest(settings, False, True)
        return [placed] if isinstance(placed, Placed) else []

    @staticmethod
    def _miss(tally: Tally, miss: Miss) -> None:
        if tally.nearest_miss is None or miss.over_bytes < tally.nearest_miss.over_bytes:
            tally.nearest_miss = miss


def search(
    workload: Workload,
    layouts: Sequence[Layout],
    *,
    exact_sums: bool = True,
    only_exact: bool = False,
    time_all: bool = False,
    by_gpu_seconds: bool = False,
    progress: Progress | None = None,
) -> Search:
    """Searches these layouts; those of fewer GPUs than others only as far as they may be faster.

    exact_sums: leave out candidates that add up gradients in bf16, where neither the accumulation dtype
    nor ZeRO stage 0 was asked for. only_exact: leave them out whatever was asked for. time_all: rank every
    settings variant, not just those that can win, also with all stages recomputing. by_gpu_seconds: the best
    needs least of them, not least time.
    """
    searching = _Searching(
        workload,
        exact_sums=exact_sums,
        only_exact=only_exact,
        time_all=time_all,
        by_gpu_seconds=by_gpu_seconds,
    )
    most = max((layout.world_size for layout in layouts), default=0)
    whole = [layout for layout in layouts if layout.world_size == most]
    bounds = LayoutBounds(workload)
    parts = [(bounds.of(layout), layout) for layout in layouts if layout.world_size < most]
    searching.result.layouts = tuple(whole)
    by_bound = sorted((bounds.of(layout), layout) for layout in whole)
    for done, (_, layout) in enumerate(by_bound):
        if progress is not None:
            progress(done, len(layouts))
        searching.whole_pool(layout)
    if by_gpu_seconds:
        parts.sort(key=lambda part: part[0] * part[1].world_size)
    else:
        parts.sort()
    for done, (bound, layout) in enumerate(parts):
        if progress is not None:
            progress(len(whole) + done, len(layouts))
        searching.part_pool(layout, bound)
    result = searching.result
    result.feasible = sum(tally.count for tally in result.fitting.values())
    if searching.found:
        winner = simplest_of_the_best(searching.found, searching.value)
        others = (one for one in searching.found if one is not winner)
        result.ranked = [winner, *sorted(others, key=lambda one: (one.time.step_seconds, one.simplicity))]
    return result


def _faster(one: Candidate, other: Candidate) -> bool:
    return (one.time.step_seconds, one.simplicity) < (other.time.step_seconds, other.simplicity)


def simplest_of_the_best(candidates: Sequence[Candidate], value: Callable[[Candidate], float]) -> Candidate:
    """The simplest of those whose value is within SIMPLER_WITHIN of the least."""
    least = min(value(one) for one in candidates)
    near = [one for one in candidates if value(one) <= least * (1 + SIMPLER_WITHIN)]
    return min(near, key=lambda one: one.simplicity)


def settled(workload: Workload, candidate: Candidate) -> Candidate:
    """The same candidate with its stages' memory evened out, and buckets that fit what is left."""
    placed = fitted_buckets(workload, spread(workload, candidate.placed))
    if placed is candidate.placed:
        return candidate
    return Candidate(placed, workload.times.step(placed.settings, placed.partition))
