"""Families that lost: the nearest miss is the nearest of all their candidates."""

from __future__ import annotations

from typing import Any

from hypothesis import assume, example, given
from hypothesis import settings as hypothesis_settings

from tests.planner.explanations.cases import KNOBS, case, case_or_none
from vdsgen.planner.compare import what_if
from vdsgen.planner.demands import whole_pool_layouts
from vdsgen.planner.explanations.families import Family, families, nearest, nearest_misses
from vdsgen.planner.numerics import adds_up_inexactly
from vdsgen.planner.place import Miss
from vdsgen.planner.search import Candidate, search
from vdsgen.planner.space import Layout
from vdsgen.planner.space import families as candidate_families


def layouts_of(family: Family) -> list[Layout]:
    return whole_pool_layouts(family.workload) if family.layouts is None else list(family.layouts)


def outcomes(family: Family, winner: Candidate) -> list[Miss | Candidate | str]:
    """What becomes of every candidate of a family, none pruned."""
    every = [
        one.at(interval)
        for one in candidate_families(family.workload, layouts_of(family))
        for interval in one.intervals
    ]
    return [what_if(family.workload, one, winner.settings) for one in every if family.holds(one)]


@given(**KNOBS)
@example(blocks=4, hidden=1024, gpus=4, nodes=2, memory_gib=3, global_batch_size=4)
@hypothesis_settings(max_examples=4)
def test_no_candidate_of_a_family_came_nearer(**knobs: Any) -> None:
    known = case_or_none(**knobs)
    assume(known is not None)
    assert known is not None
    workload, winner, _, _ = known
    for family in families(workload, winner.settings):
        found = nearest(family, winner)
        if found is None:
            continue
        if found.outcome == "refused" and found.settings is None:
            continue  # demands that contradict each other have no candidates
        tried = outcomes(family, winner)
        fits = [one for one in tried if isinstance(one, Candidate)]
        misses = [one for one in tried if isinstance(one, Miss)]
        if found.outcome == "slower":
            exact = not adds_up_inexactly(winner.settings)
            every = search(family.workload, layouts_of(family), only_exact=exact, time_all=True)
            best = min(one.time.step_seconds for one in every.ranked if family.holds(one.settings))
            assert found.extra_seconds is not None
            assert abs(best - winner.time.step_seconds - found.extra_seconds) <= 1e-9 * best
        elif found.outcome == "out_of_memory":
            assert not fits
            nearest_of_all = min(one.over_bytes for one in misses)
            # Sums in bf16, which `what_if` refuses, are searched where nothing else fits.
            inexact = found.settings is not None and found.settings["gradient_accumulation_dtype"] == "bf16"
            assert found.missing_bytes is not None and found.missing_bytes <= nearest_of_all
            assert inexact or found.missing_bytes == nearest_of_all
        elif found.outcome == "refused":
            assert not fits and not misses


def test_families_are_named_by_what_people_think_in() -> None:
    workload, winner, _, _ = case(8, memory_gib=4.0)
    names = [one.family for one in nearest_misses(workload, winner)]
    for name in ("pipeline 2 x data 2", "pipeline 4 x data 1", "ZeRO-3", "fp16", "fp32"):
        assert name in names, names
    assert any(name.startswith("micro-batch") for name in names)
    assert any("checkpoint" in name for name in names)


def test_a_rule_is_told_with_both_values() -> None:
    pins = {"pipeline_parallel_size": 2}
    workload, winner, _, _ = case(8, memory_gib=12.0, constraints=pins)
    by_family = {one.family: one for one in nearest_misses(workload, winner)}
    assert by_family["ZeRO-3"].outcome == "refused"
    assert "ZeRO stage 3 with 2 pipeline stages" in by_family["ZeRO-3"].detail


def test_what_does_not_fit_says_where_and_what() -> None:
    pins = {"offload_optimizer": "none"}
    workload, winner, _, _ = case(8, memory_gib=2.3, global_batch_size=4, constraints=pins)
    misses = [one for one in nearest_misses(workload, winner) if one.outcome == "out_of_memory"]
    assert misses
    for one in misses:
        assert one.missing_bytes and one.component and one.stage is not None
        assert f"{one.missing_bytes / 1024**3:.2f} GiB" in one.detail and one.component in one.detail
