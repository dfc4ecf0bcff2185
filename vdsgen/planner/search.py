"""The search: every candidate is refused by a rule, does not fit, or is timed; the fastest wins."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from vdsgen.cost.settings import Settings
from vdsgen.cost.step_time import StepTime
from vdsgen.planner.facts import facts
from vdsgen.planner.numerics import loses_sums
from vdsgen.planner.place import Miss, Placed, place, spread
from vdsgen.planner.space import Family, Layout, families
from vdsgen.planner.workload import Workload
from vdsgen.rules.registry import forbidding_rules
from vdsgen.rules.rule import Violation, violations

SIMPLER_WITHIN = 0.01
"""A simpler plan is taken where it is at most this much slower: the time model is no better than that."""


class Candidate(NamedTuple):
    """A plan that fits, timed."""

    placed: Placed
    time: StepTime

    @property
    def settings(self) -> Settings:
        return self.placed.settings

    @property
    def simplicity(self) -> tuple[int, ...]:
        """Less pipeline, less ZeRO, no checkpointing; then the emptier GPU. Smaller is simpler."""
        settings = self.settings
        return (
            settings.pipeline_parallel_size,
            settings.zero_stage,
            int(settings.activation_checkpoint_interval > 0),
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
    """What a search found."""

    layouts: tuple[Layout, ...]
    candidates: int = 0
    feasible: int = 0
    ranked: list[Candidate] = field(default_factory=list)
    """The winner first, then by speed; one for each layout, ZeRO stage, batch split and precision, with
    and without checkpointing, those left out that are surely slower."""
    refused: dict[str, Tally] = field(default_factory=dict)
    """By the id of the rule."""
    inexact_sums: int = 0
    """Set aside because gradients of several micro-batches would add up in bf16."""
    out_of_memory: dict[int, Tally] = field(default_factory=dict)
    """By pipeline parallel size."""
    fitting: dict[int, Tally] = field(default_factory=dict)
    """By pipeline parallel size."""


def search(
    workload: Workload, layouts: list[Layout], *, exact_sums: bool = True, time_all: bool = False
) -> Search:
    """Searches these layouts.

    exact_sums: leave out candidates that add up gradients in bf16, where neither the accumulation dtype
    nor ZeRO stage 0 was asked for. time_all: rank every candidate, not just those that can win.
    """
    result = Search(layouts=tuple(layouts))
    training, pins = workload.experiment.training, workload.experiment.constraints
    set_aside = exact_sums and training.gradient_accumulation_dtype == "auto" and pins.zero_stage != 0
    hopeless: set[tuple[object, ...]] = set()
    placed: list[Placed] = []
    for family in families(workload, layouts):
        settings = family.settings
        count = len(family.intervals)
        result.candidates += count
        broken = _broken_rule(workload, family)
        if broken is not None:
            tally = result.refused.setdefault(broken.rule.id, Tally(violation=broken, settings=settings))
            tally.count += count
        elif set_aside and loses_sums(
            settings.dtype, settings.gradient_accumulation_dtype, settings.gradient_accumulation_steps
        ):
            result.inexact_sums += count
        else:
            placed += _place_family(workload, family, hopeless, result)
    _rank(workload, placed, result, time_all=time_all)
    return result


def _broken_rule(workload: Workload, family: Family) -> Violation | None:
    found = violations(facts(workload, family.at(family.intervals[-1])), forbidding_rules())
    return found[0] if found else None


def _place_family(
    workload: Workload, family: Family, hopeless: set[tuple[object, ...]], result: Search
) -> list[Placed]:
    """The best of the family's intervals, with and without checkpointing.

    Whether and how a plan checkpoints decides its memory; which interval it takes does not change its
    time, so of those with equally fast partitions the one that needs least memory stands for all.
    Micro-batches of a family grow from one call to the next, and memory with them: what did not fit with
    a smaller one is not looked at again.
    """
    settings = family.settings
    stages = settings.pipeline_parallel_size
    found: list[Placed] = []
    for interval in family.intervals:
        same_but_micro_batch = (
            stages, settings.data_parallel_size, settings.zero_stage, settings.dtype, interval,
        )  # fmt: skip
        tally = result.out_of_memory.setdefault(stages, Tally())
        if same_but_micro_batch in hopeless:
            tally.count += 1
            continue
        outcome = place(workload, family.at(interval))
        if isinstance(outcome, Placed):
            found.append(outcome)
            continue
        hopeless.add(same_but_micro_batch)
        tally.count += 1
        if tally.nearest_miss is None or outcome.over_bytes < tally.nearest_miss.over_bytes:
            tally.nearest_miss = outcome
    result.feasible += len(found)
    result.fitting.setdefault(stages, Tally()).count += len(found)
    best: dict[bool, Placed] = {}
    for one in found:
        key = one.settings.activation_checkpoint_interval > 0
        if key not in best or _order(workload, one) < _order(workload, best[key]):
            best[key] = one
    return list(best.values())


def _order(workload: Workload, placed: Placed) -> tuple[float, int, int]:
    stages = workload.times.stage_times(placed.settings, placed.partition)
    slowest = max(stage.busy_seconds for stage in stages)
    return (float(f"{slowest:.9e}"), placed.peak_bytes, placed.settings.activation_checkpoint_interval)


def _rank(workload: Workload, placed: list[Placed], result: Search, *, time_all: bool) -> None:
    """Times candidates, those that may be fastest first.

    Left out are those that can be neither the winner nor the best or second best of their layout.
    """
    bounded = [(workload.times.lower_bound_seconds(one.settings, one.partition), one) for one in placed]
    bounded.sort(key=lambda pair: pair[0])
    best_two: dict[int, list[float]] = {}
    timed = []
    for bound, one in bounded:
        best = best_two.setdefault(one.settings.pipeline_parallel_size, [])
        if len(best) == 2 and bound > max(best[0] * (1 + SIMPLER_WITHIN), best[1]) and not time_all:
            continue
        candidate = Candidate(one, workload.times.step(one.settings, one.partition))
        timed.append(candidate)
        best[:] = sorted([*best, candidate.time.step_seconds])[:2]
    for candidate in timed:
        tally = result.fitting[candidate.settings.pipeline_parallel_size]
        if tally.fastest is None or _faster(candidate, tally.fastest):
            tally.fastest = candidate
    if timed:
        winner = simplest_of_the_fastest(timed)
        others = sorted(
            (one for one in timed if one is not winner),
            key=lambda one: (one.time.step_seconds, one.simplicity),
        )
        result.ranked = [winner, *others]


def _faster(one: Candidate, other: Candidate) -> bool:
    return (one.time.step_seconds, one.simplicity) < (other.time.step_seconds, other.simplicity)


def simplest_of_the_fastest(candidates: Iterable[Candidate]) -> Candidate:
    """The simplest of those that are within SIMPLER_WITHIN of the fastest."""
    timed = list(candidates)
    fastest = min(one.time.step_seconds for one in timed)
    near = [one for one in timed if one.time.step_seconds <= fastest * (1 + SIMPLER_WITHIN)]
    return min(near, key=lambda one: one.simplicity)


def settled(workload: Workload, candidate: Candidate) -> Candidate:
    """The same candidate with its stages' memory evened out."""
    placed = spread(workload, candidate.placed)
    if placed.partition == candidate.placed.partition:
        return candidate
    return Candidate(placed, workload.times.step(placed.settings, placed.partition))
