"""What vdsgen itself renders is clean: every engine mode, and plans of random labs and experiments."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.render.plans import plan_of, small_experiment
from tests.render.test_engine_config import legal_plans, plan_id
from tests.review.lint.lints import found, with_changes
from vdsgen.render.render import render_plan
from vdsgen.review.lint.context import Context
from vdsgen.review.lint.run import lint
from vdsgen.spec.optimization import Schedule
from vdsgen.spec.plan import Plan


def check(plan: Plan, **training: Any) -> None:
    text = render_plan(plan, small_experiment(**training))["ds_config.json"]
    linted = lint(text, "ds_config.json", Context(plan=plan))
    assert [finding for finding in linted.findings if finding.level != "note"] == []


@pytest.mark.parametrize("plan", legal_plans(), ids=plan_id)
def test_every_engine_mode_is_clean(plan: Plan) -> None:
    check(plan)


@given(
    pipeline=st.sampled_from([1, 2]), data=st.integers(1, 8), stage=st.integers(0, 3),
    dtype=st.sampled_from(["fp32", "fp16", "bf16"]),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_random_layouts_are_clean(pipeline: int, data: int, stage: int, dtype: str) -> None:
    if pipeline > 1:
        stage = min(stage, 1)
    check(plan_of(pipeline=pipeline, data=data, zero_stage=stage, dtype=dtype, accumulation_dtype=dtype))


@pytest.mark.parametrize(
    "schedule",
    [
        Schedule(type="one_cycle", final_fraction=0.1),
        Schedule(type="inverse_sqrt", warmup_steps=2, decay_from_step=4),
    ],
    ids=["one_cycle", "inverse_sqrt"],
)
def test_schedules_that_few_have_are_clean_too(schedule: Schedule) -> None:
    check(plan_of(), schedule=schedule)


def test_a_scheduler_beside_the_trainers_own_does_nothing() -> None:
    plan, own = plan_of(), Schedule(type="inverse_sqrt", warmup_steps=2)
    config = json.loads(render_plan(plan, small_experiment(schedule=own))["ds_config.json"])
    config["scheduler"] = {"type": "WarmupLR", "params": {"warmup_num_steps": 2}}
    findings = found(config, Context(plan=plan))
    assert "scheduler-section-unused" in {finding.check for finding in findings}


@pytest.mark.parametrize(("cycles", "expected"), [(True, {"scheduler-cycle-betas"}), (False, set())])
def test_one_cycle_that_puts_betas_of_its_own_in_their_place_is_found(
    cycles: bool, expected: set[str]
) -> None:
    params = {"cycle_min_lr": 0, "cycle_max_lr": 1e-4, "cycle_momentum": cycles}
    config = with_changes(
        {"/optimizer/params/betas": [0.9, 0.95], "/scheduler": {"type": "OneCycle", "params": params}}
    )
    assert {finding.check for finding in found(config)} == expected
