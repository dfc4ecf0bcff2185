"""Keys and values against those of the engine: what is found, where, and what repairs it."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import pytest

from tests.review.lint.configs import ODD_VALUES
from tests.review.lint.lints import FOUR, GOOD, found, linted, with_changes
from vdsgen.catalog.engine_keys import engine_data, engine_section
from vdsgen.review.lint.context import Context
from vdsgen.review.lint.repair import repaired


def test_nothing_is_found_in_a_good_config() -> None:
    assert found(GOOD) == ()


@pytest.mark.parametrize(
    ("pointer", "value", "check", "level", "words"),
    [
        ("/gradient_cliping", 1.0, "unknown-key", "warning", ("drops it", "did you mean gradient_clipping")),
        ("/zero_optimization/stages", 2, "unknown-key", "error", ("refuses it", "did you mean stage")),
        ("/stage", 2, "unknown-key", "warning", ("belongs in zero_optimization",)),
        ("/amp", {"enabled": True}, "removed-amp", "error", ("fp16, bf16 or torch_autocast",)),
        ("/zero_optimization/cpu_offload", True, "deprecated-key", "warning", ("use offload_optimizer",)),
        ("/zero_optimization/reduce_bucket_size", "5e8", "wrong-type", "error", ("write 500000000",)),
        ("/zero_optimization/reduce_bucket_size", "500", "coerced-value", "note", ("write 500",)),
        ("/zero_optimization/reduce_bucket_size", 0, "wrong-type", "error", ("above 0",)),
        ("/zero_optimization/stage", 4, "wrong-type", "error", ("0, 1, 2 or 3",)),
        ("/zero_optimization/overlap_comm", "auto", "auto-is-default", "warning", ("Transformers",)),
        ("/gradient_clipping", "auto", "auto-as-text", "error", ("Transformers",)),
        ("/gradient_clipping", "1.0", "wrong-type", "error", ("a number", "write 1.0")),
        ("/gradient_clipping", True, "wrong-type", "warning", ("a number",)),
        ("/prescale_gradients", "", "wrong-type", "warning", ("true or false",)),
        ("/prescale_gradients", "yes", "prescale-reduce-scatter", "error", ("prescale_gradients is true",)),
        ("/pipeline/pipe_partitioned", 1, "wrong-type", "warning", ("true or false",)),
        ("/train_batch_size", "8", "wrong-type", "error", ("write 8",)),
        ("/zero_optimization", True, "deprecated-key", "warning", ('{"stage": 1}',)),
        ("/fp16/loss_scale", True, "wrong-type", "error", ("a number",)),
        ("/activation_checkpointing/profile", True, "checkpointing-configured", "warning", ("configure",)),
        ("/pipeline/stages", 2, "pipeline-unread-keys", "warning", ("PipelineModule",)),
        ("/compile/sync_before_reduce", True, "unread-key", "warning", ("nothing in DeepSpeed reads",)),
        ("/optimizer/params/lr", "fast", "optimizer-param-values", "error", ("'fast'", "not a number")),
    ],
)
def test_each_kind_of_mistake_is_told_at_its_place(
    pointer: str, value: Any, check: str, level: str, words: tuple[str, ...]
) -> None:
    findings = [finding for finding in found(with_changes({pointer: value})) if finding.check == check]
    assert len(findings) == 1, found(with_changes({pointer: value}))
    finding = findings[0]
    assert finding.level == level
    assert pointer.startswith(finding.pointer)
    for word in words:
        assert word in f"{finding.message} {finding.remedy}"
    assert finding.place.line > 1


def test_a_key_given_twice_is_an_error_at_the_second() -> None:
    text = '{"train_batch_size": 8,\n "bf16": {"enabled": true},\n "train_batch_size": 4}'
    [finding] = [f for f in found(text) if f.check == "duplicate-key"]
    assert (finding.level, finding.place.line, finding.place.column) == ("error", 3, 2)


def test_both_names_of_one_key_are_an_error() -> None:
    section = {"stage": 3, "max_live_parameters": 5, "stage3_max_live_parameters": 6}
    findings = found(with_changes({"/zero_optimization": section}))
    assert [f.pointer for f in findings if f.check == "key-named-twice"] == [
        "/zero_optimization/max_live_parameters"
    ]


def test_auto_is_no_finding_where_somebody_fills_it_in() -> None:
    config = with_changes({"/train_batch_size": "auto", "/zero_optimization/reduce_bucket_size": "auto"})
    assert {f.check for f in found(config)} == {"batch-numbers", "auto-is-default"}
    assert found(config, Context(world_size=4, auto_filled=True)) == ()


def test_a_value_of_the_wrong_type_is_no_fact() -> None:
    checks = {f.check for f in found(with_changes({"/zero_optimization/stage": "three"}))}
    assert checks == {"wrong-type"}


def test_every_removed_key_is_an_error_of_a_rule() -> None:
    for pointer, section in engine_data()["sections"].items():
        for name, entry in section["keys"].items():
            if "removed" in entry:
                findings = found(with_changes({f"{pointer}/{name}": {}}))
                assert [f.level for f in findings if f.check.startswith("removed-")] == ["error"], name


@pytest.mark.parametrize(
    "changes",
    [
        {"/zero_optimization/cpu_offload": True},
        {"/dump_stat": False},
        {"/zero_optimization/reduce_bucket_size": "5e8"},
        {"/amp": {}},
        {"/zero_optimization/allgather_bucket_size": 3},
        {"/gradient_accumulation_steps": 3},
        {"/pipeline/stages": 2},
    ],
)
def test_after_its_repair_a_mistake_is_no_longer_found(changes: dict[str, Any]) -> None:
    before = linted(with_changes(changes))
    assert before.findings
    after, operations = repaired(before, FOUR)
    assert operations
    assert [f for f in after.findings if f.level != "note"] == []


def models() -> list[tuple[str, Any]]:
    """Every section that the engine checks with a pydantic model, and the model."""
    homes = (
        "comm.config", "compile.config", "inference.config", "monitor.config", "runtime.config",
        "runtime.precision_config", "runtime.tensor_parallel.config", "runtime.zero.config", "utils.config",
        "runtime.zero.offload_config", "runtime.zero.leaf_module_config", "runtime.zenflow.zenflow_config",
    )  # fmt: skip
    named = {
        name: kind
        for home in homes
        for name, kind in vars(importlib.import_module(f"deepspeed.{home}")).items()
        if inspect.isclass(kind)
    }
    sections = engine_data()["sections"].items()
    return [(pointer, named[section["model"]]) for pointer, section in sections if "model" in section]


def test_values_are_refused_that_the_engine_s_models_refuse_and_no_others() -> None:
    """Each key of each model with each of many values, by lint and by the model itself."""
    odd: tuple[Any, ...] = (
        *ODD_VALUES,
        1.0,
        0.0,
        -0.5,
        2**70,
        "1.0",
        "-1",
        "1e400",
        " 4 ",
        "True",
        "off",
        [[]],
        {"a": 1},
        "nvme",
        "3",
    )
    differences = []
    for pointer, model in models():
        section = engine_section(pointer)
        assert section is not None
        for name, key in section.keys.items():
            if key.removed is not None or key.section is not None:
                continue
            for value in odd:
                if value == "auto" or (pointer, name) in COMBINED:
                    continue
                try:
                    model(**{name: value})
                    engine = True
                except Exception:
                    engine = False
                if engine != taken(pointer, name, value):
                    differences.append((pointer, name, value, engine))
    assert differences == []


COMBINED = {
    ("/zero_optimization", "compute_grad_norm"),  # needs stage 1 or 2: a rule
    ("/zero_optimization/zenflow", "select_strategy"),  # what these may be is a rule
    ("/zero_optimization/zenflow", "select_interval"),
    ("/zero_optimization/zenflow", "update_interval"),
}
"""Keys whose model also looks at other keys, or at more than their type."""


def taken(pointer: str, name: str, value: Any) -> bool:
    """Whether lint has no error of type for this value there."""
    findings = found(with_changes({f"{pointer}/{name}": value}))
    return not any(f.check == "wrong-type" and f.pointer == f"{pointer}/{name}" for f in findings)
