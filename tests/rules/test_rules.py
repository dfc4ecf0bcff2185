"""Rules: each rejects what it says, with the values; and the engine really refuses what rules say it does."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vdsgen.rules.markdown import rules_markdown
from vdsgen.rules.registry import all_rules, rule
from vdsgen.rules.rule import Facts, violations

GOOD = Facts(
    world_size=4,
    pipeline_parallel_size=2,
    data_parallel_size=2,
    global_batch_size=16,
    micro_batch_size=1,
    gradient_accumulation_steps=8,
    zero_stage=1,
    allgather_bucket_elements=1000,
    activation_checkpoint_interval=3,
    fp16_enabled=False,
    bf16_enabled=True,
    gradient_accumulation_dtype="fp32",
    gpu="rtx-4090",
    gpu_has_fp16=True,
    gpu_has_bf16=True,
    blocks=48,
    stage_blocks=(24, 24),
)
"""A configuration that obeys every rule."""

BROKEN: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "compression-once-a-step": (
        {"pipeline_parallel_size": 1, "zero_stage": 2, "gradient_compression": "int8"},
        ("int8", "ZeRO-2"),
    ),
    "batch-positive": ({"micro_batch_size": 0, "global_batch_size": 0}, ("0",)),
    "batch-product": ({"global_batch_size": 17}, ("17", "16")),
    "pipeline-divides-world": ({"pipeline_parallel_size": 3}, ("3", "4")),
    "layout-fills-world": ({"world_size": 8}, ("8", "4")),
    "pipeline-zero": ({"zero_stage": 2}, ("2",)),
    "pipeline-enough-blocks": ({"blocks": 1, "activation_checkpoint_interval": 0}, ("1", "2")),
    "stage-has-block": ({"stage_blocks": (48, 0)}, ("stage 1",)),
    "interval-within-blocks": ({"activation_checkpoint_interval": 49}, ("49", "48")),
    "one-half-precision": ({"fp16_enabled": True}, ("fp16", "bf16")),
    "gpu-has-fp16": (
        {
            "fp16_enabled": True,
            "bf16_enabled": False,
            "gpu_has_fp16": False,
            "gradient_accumulation_dtype": "fp16",
        },
        ("rtx-4090",),
    ),
    "gpu-has-bf16": ({"gpu_has_bf16": False}, ("rtx-4090",)),
    "accumulation-needs-zero": ({"zero_stage": 0}, ("bf16", "fp32")),
    "accumulation-keeps-precision": ({"gradient_accumulation_dtype": "fp16"}, ("bf16", "fp16")),
    "zero-stage-exists": ({"zero_stage": 4, "pipeline_parallel_size": 1, "data_parallel_size": 4}, ("4",)),
    "allgather-bucket-even": (
        {"allgather_bucket_elements": 1001, "gradient_accumulation_dtype": "bf16"},
        ("1001",),
    ),
}


def changed(**changes: Any) -> Facts:
    return Facts(**{name: changes.get(name, getattr(GOOD, name)) for name in Facts._fields})


def test_a_good_configuration_breaks_nothing() -> None:
    assert violations(GOOD, all_rules()) == []


def test_unknown_facts_break_nothing() -> None:
    assert violations(Facts(), all_rules()) == []


def test_every_rule_has_a_configuration_that_breaks_it() -> None:
    assert set(BROKEN) == {rule.id for rule in all_rules()}


@pytest.mark.parametrize("rule_id", BROKEN)
def test_rule_names_the_values(rule_id: str) -> None:
    changes, words = BROKEN[rule_id]
    found = {violation.rule.id: violation for violation in violations(changed(**changes), all_rules())}
    assert rule_id in found
    assert all(word in found[rule_id].message for word in words), found[rule_id].message
    assert rule(rule_id).remedy in str(found[rule_id])


def test_ids_are_unique_words() -> None:
    ids = [rule.id for rule in all_rules()]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) for name in ids)


def test_docs_are_fresh() -> None:
    assert (Path(__file__).parents[2] / "docs" / "rules.md").read_text() == rules_markdown()


def engine_config(dtype: str, accumulation: str, zero_stage: int, **changes: Any) -> dict[str, Any]:
    config: dict[str, Any] = {
        "train_batch_size": 8,
        "train_micro_batch_size_per_gpu": 2,
        "gradient_accumulation_steps": 4,
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-3, "torch_adam": True}},
        "zero_optimization": {"stage": zero_stage, "reduce_bucket_size": 1000, "allgather_bucket_size": 1000},
        "steps_per_print": 1000,
        **changes,
    }
    if dtype != "fp32":
        config[dtype] = {"enabled": True}
    if accumulation != dtype:
        config["data_types"] = {"grad_accum_dtype": accumulation}
    return config


REFUSED: dict[str, list[dict[str, Any]]] = {
    "batch-positive": [
        {"config": engine_config("bf16", "bf16", 1, train_batch_size=0, train_micro_batch_size_per_gpu=0)}
    ],
    "batch-product": [{"config": engine_config("bf16", "bf16", 1, train_batch_size=9)}],
    "pipeline-divides-world": [{"config": engine_config("bf16", "bf16", 1), "pipeline": 2}],
    "pipeline-zero": [{"config": engine_config("bf16", "bf16", stage), "pipeline": 1} for stage in (2, 3)],
    "one-half-precision": [{"config": engine_config("bf16", "bf16", 1, fp16={"enabled": True})}],
    "gpu-has-fp16": [{"config": engine_config("fp16", "fp16", 1), "lacks": ["fp16"]}],
    "gpu-has-bf16": [{"config": engine_config("bf16", "bf16", 1), "lacks": ["bf16"]}],
    "accumulation-needs-zero": [
        {"config": engine_config("bf16", "fp32", 0), "pipeline": pipeline} for pipeline in (None, 1)
    ]
    + [{"config": engine_config("fp16", "fp32", 0)}],
    "zero-stage-exists": [{"config": engine_config("bf16", "bf16", 4)}],
    "allgather-bucket-even": [
        {
            "config": engine_config(
                "bf16", "bf16", stage, zero_optimization={"stage": stage, "allgather_bucket_size": 1001}
            )
        }
        for stage in (1, 2)
    ],
}
"""What the engine refuses, by the rule that says so."""

ACCEPTED = [
    {"config": engine_config(dtype, accumulation, stage), "pipeline": pipeline}
    for pipeline in (None, 1)
    for stage in ((0, 1, 2, 3) if pipeline is None else (0, 1))
    for dtype, accumulation in (("fp32", "fp32"), ("bf16", "bf16"), ("bf16", "fp32"), ("fp16", "fp16"))
    if stage > 0 or dtype == accumulation
]
"""Everything that the planner may choose, in kind."""


@pytest.mark.slow
def test_the_engine_refuses_what_rules_refuse_and_trains_the_rest() -> None:
    named = [(rule_id, case) for rule_id, cases in REFUSED.items() for case in cases]
    cases = [case for _, case in named] + ACCEPTED
    run = subprocess.run(
        [sys.executable, "-m", "tests.rules.engine_probe"],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    outcomes = json.loads(run.stdout)
    for (rule_id, case), outcome in zip(named, outcomes, strict=False):
        assert outcome is not None and str(rule(rule_id).engine_message) in outcome, (rule_id, case, outcome)
    assert outcomes[len(named) :] == [None] * len(ACCEPTED)
    assert set(REFUSED) == {rule.id for rule in all_rules() if rule.engine_message is not None}
