"""Overrides reach the rendered files, and are held against the rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.rendering import EXPERIMENT, generate
from tests.render.plans import plan_of, small_experiment
from tests.review.directories import plan_for
from vdsgen.errors import InputError
from vdsgen.render.render import render_plan
from vdsgen.review.overridden import check_overrides
from vdsgen.spec.config_overrides import Overrides
from vdsgen.spec.experiment import Experiment


def overriding(**ds_config: Any) -> Experiment:
    return small_experiment().model_copy(update={"overrides": Overrides(ds_config=ds_config)})


def test_they_are_merged_into_the_config_recorded_and_told() -> None:
    experiment = overriding(steps_per_print=10, zero_optimization={"overlap_comm": True})
    files = render_plan(plan_for(experiment), experiment)
    config = json.loads(files["ds_config.json"])
    assert config["steps_per_print"] == 10
    assert config["zero_optimization"]["overlap_comm"] is True
    assert config["zero_optimization"]["stage"] == 1
    assert b"overrides:\n  ds_config:\n    steps_per_print: 10\n" in files["train.yaml"]
    page = files["PLAN.md"].decode()
    assert "| `steps_per_print`                | `100`" in page
    assert "`zero_optimization.overlap_comm` | `false` | `true`" in page


def test_without_overrides_nothing_is_told_of_them() -> None:
    files = render_plan(plan_of(), small_experiment())
    assert b"overrides" not in files["train.yaml"] and b"own settings" not in files["PLAN.md"]


@pytest.mark.parametrize(
    ("ds_config", "key", "message"),
    [
        ({"steps_per_prnt": 10}, "steps_per_prnt", "[unknown-key]"),
        ({"steps_per_print": "ten"}, "steps_per_print", "[wrong-type]"),
        ({"zero_optimization": {"overlap_comm": "yes"}}, "zero_optimization.overlap_comm", "[coerced-value]"),
        ({"zero_optimization": {"stage3_prefetch_bucket_size": -1}},
         "zero_optimization.stage3_prefetch_bucket_size", "[wrong-type]"),
        ({"elasticity": {"enabled": True, "max_train_batch_size": 8, "micro_batch_sizes": [1]}},
         "elasticity", "elastic"),
    ],
)  # fmt: skip
def test_what_the_engine_would_refuse_or_drop_is_refused_with_the_rule_s_message(
    ds_config: dict[str, Any], key: str, message: str
) -> None:
    experiment = overriding(**ds_config)
    with pytest.raises(InputError) as caught:
        check_overrides(plan_for(experiment), experiment)
    problem = caught.value.problems[0]
    assert (problem.key or "").startswith(f"overrides.ds_config.{key}")
    assert message in problem.message


def test_what_the_engine_does_besides_is_told() -> None:
    experiment = overriding(flops_profiler={"enabled": True})
    (problem,) = check_overrides(
        plan_for(experiment, plan_of(pipeline=1, data=4, accumulation=2)), experiment
    )
    assert "[flops-profiler-clock]" in problem.message


def test_what_a_pipeline_cannot_time_is_refused_on_one() -> None:
    experiment = overriding(flops_profiler={"enabled": True})
    with pytest.raises(InputError, match="pipeline-stages-timed"):
        check_overrides(plan_for(experiment), experiment)


def test_generate_names_the_line_of_the_experiment(tmp_path: Path) -> None:
    own = f"{EXPERIMENT}overrides:\n  ds_config:\n    wall_clock_breakdwn: true\n"
    result = generate(tmp_path, "--pool", "four", experiment=own)
    assert result.exit_code == 2
    line = own.count("\n")
    assert f"experiment.yaml:{line}:26: overrides.ds_config.wall_clock_breakdwn: " in result.stderr
    assert "did you mean wall_clock_breakdown?" in result.stderr
    assert not (tmp_path / "out").exists()
