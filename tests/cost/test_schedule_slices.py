"""Slices of a schedule: they end where the simulation does, and a step's where its prediction does."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.report.subjects import example
from vdsgen.cost.schedule import StageTimes, simulate
from vdsgen.cost.schedule_slices import PARTNERS, Slice, pipeline_slices, shared_slices
from vdsgen.cost.shared_processor import Sharing, simulate_shared
from vdsgen.cost.step_slices import step_slices

SECONDS = st.floats(min_value=0.01, max_value=2.0)
PIPELINES = st.integers(min_value=1, max_value=5).flatmap(
    lambda count: st.tuples(
        st.lists(st.builds(StageTimes, SECONDS, SECONDS), min_size=count, max_size=count),
        st.lists(SECONDS, min_size=count - 1, max_size=count - 1),
        st.integers(min_value=1, max_value=7),
    )
)
EXAMPLES = (
    "article-1.5b@four-24gb",
    "article-2.1b-pinned@eight-24gb",
    "cpu-demo@cpu-demo",
    "wan-14b-lora@four-24gb",
)


def ends(slices: list[Slice]) -> list[float]:
    by_stage: dict[int, float] = defaultdict(float)
    for one in slices:
        by_stage[one.stage] = max(by_stage[one.stage], one.end_seconds)
    return [by_stage[stage] for stage in sorted(by_stage)]


@settings(max_examples=40)
@given(PIPELINES)
def test_every_stage_ends_when_the_simulation_says(
    pipeline: tuple[list[StageTimes], list[float], int],
) -> None:
    stages, transfers, micro_batches = pipeline
    run = simulate(stages, transfers, micro_batches)
    slices = pipeline_slices(stages, transfers, micro_batches)
    assert ends(slices) == pytest.approx(run.stage_end_seconds)


@settings(max_examples=20)
@given(PIPELINES)
def test_on_shared_cores_too(pipeline: tuple[list[StageTimes], list[float], int]) -> None:
    stages, transfers, micro_batches = pipeline
    sharing = Sharing(cores=2, alone_speedup=1.2, measured_with=2, crowded_slowdown=1.1)
    run = simulate_shared(stages, transfers, micro_batches, sharing, 1)
    slices = shared_slices(stages, transfers, micro_batches, sharing, 1)
    assert ends(slices) == pytest.approx(run.stage_end_seconds)


@settings(max_examples=20)
@given(PIPELINES)
def test_a_stage_does_one_thing_at_a_time_and_both_sides_of_an_exchange_are_at_it_together(
    pipeline: tuple[list[StageTimes], list[float], int],
) -> None:
    slices = pipeline_slices(*pipeline)
    by_stage: dict[int, list[Slice]] = defaultdict(list)
    for one in slices:
        by_stage[one.stage].append(one)
    for own in by_stage.values():
        for before, after in pairwise(own):
            assert before.end_seconds <= after.begin_seconds + 1e-9
    known = {(one.stage, one.name, one.micro_batch): one for one in slices}
    for one in slices:
        if one.name in PARTNERS:
            step, name = PARTNERS[one.name]
            other = known[one.stage + step, name, one.micro_batch]
            assert (one.begin_seconds, one.end_seconds) == (other.begin_seconds, other.end_seconds)


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_step_ends_when_its_prediction_says(name: str) -> None:
    subject = example(name)
    whole = subject.settings.gradient_accumulation_steps
    step = step_slices(subject.workload.times, subject.settings, subject.partition, whole)
    assert step.end_seconds == pytest.approx(subject.plan.predicted.step_seconds, rel=1e-9)
    assert step.left_out == 0
    split = subject.plan.predicted.split
    assert split is not None
    recomputed = whole * sum(step.recompute_seconds) / step.stages
    if not subject.workload.times.shares_cores:
        assert recomputed == pytest.approx(split.recompute_seconds, rel=1e-6, abs=1e-9)


def test_an_excerpt_fills_runs_steadily_and_drains() -> None:
    subject = example("article-2.1b-pinned@eight-24gb")
    long = subject.settings._replace(gradient_accumulation_steps=400)
    step = step_slices(subject.workload.times, long, subject.partition)
    assert (step.micro_batches, step.left_out) == (16, 384)
    forwards = [one for one in step.of_stage(0) if one.name == "ForwardPass"]
    assert [one.micro_batch for one in forwards] == list(range(16))
