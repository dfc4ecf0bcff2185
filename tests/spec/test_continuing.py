from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.model.training import render_tiny
from vdsgen.errors import VdsgenError
from vdsgen.spec.checkpoints import CheckpointRecord
from vdsgen.spec.continuing import check_continues, needs_conversion, never_converted
from vdsgen.spec.optimization import AdamW
from vdsgen.spec.rendered import Rendered, read_rendered
from vdsgen.spec.run import dtype_of
from vdsgen.spec.run_plans import next_plan, plan_of_checkpoint, record_plan, recorded_plans


@pytest.fixture
def before(tmp_path: Path) -> Rendered:
    return read_rendered(render_tiny(tmp_path / "before", tmp_path / "clips"))


def other(tmp_path: Path, **changes: Any) -> Rendered:
    return read_rendered(render_tiny(tmp_path / "now", tmp_path / "clips", **changes))


def test_another_layout_and_what_is_saved_do_not_matter(tmp_path: Path, before: Rendered) -> None:
    now = other(tmp_path, pipeline=1, data=1, accumulation=4, zero_stage=2)
    assert check_continues(before, now) == []


@pytest.mark.parametrize(
    ("training", "named"),
    [
        ({"seed": 3}, "training.seed was 0, is 3: clips would come in another order"),
        ({"global_batch_size": 8}, "training.global_batch_size was 4, is 8: steps would see other clips"),
    ],
)
def test_another_run_is_refused(
    tmp_path: Path, before: Rendered, training: dict[str, Any], named: str
) -> None:
    accumulation = training.get("global_batch_size", 4) // 2
    now = other(tmp_path, training=training, accumulation=accumulation)
    with pytest.raises(VdsgenError, match="does not continue the run") as caught:
        check_continues(before, now)
    assert named in str(caught.value)


def test_a_batch_that_was_edited_by_hand_is_refused(tmp_path: Path, before: Rendered) -> None:
    now = other(tmp_path)
    path = now.path / "ds_config.json"
    config = json.loads(path.read_text())
    config["train_batch_size"] *= 2
    config["gradient_accumulation_steps"] *= 2
    path.write_text(json.dumps(config))
    with pytest.raises(VdsgenError, match="train_batch_size was 4, is 8"):
        check_continues(before, read_rendered(now.path))


def test_what_differs_and_goes_on_is_said(tmp_path: Path, before: Rendered) -> None:
    now = other(tmp_path, training={"optimizer": AdamW(learning_rate=5e-4)}, dtype="bf16")
    sentences = check_continues(before, now)
    assert "training.optimizer.learning_rate was 0.001, is 0.0005 from here on" in sentences
    assert any(sentence.startswith("it computes in bf16 from here on, not in fp32") for sentence in sentences)


def test_another_optimizer_around_the_same_layout_needs_a_conversion(
    tmp_path: Path, before: Rendered
) -> None:
    now = other(tmp_path)
    assert not needs_conversion(before, now)
    assert not needs_conversion(None, now)
    path = now.path / "ds_config.json"
    config = json.loads(path.read_text())
    config["data_types"] = {"grad_accum_dtype": "bf16"}
    path.write_text(json.dumps(config))
    assert needs_conversion(before, read_rendered(now.path))


def with_zero(directory: Rendered, **zero: Any) -> Rendered:
    path = directory.path / "ds_config.json"
    config = json.loads(path.read_text())
    config["zero_optimization"] = {**config.get("zero_optimization", {}), **zero}
    path.write_text(json.dumps(config))
    return read_rendered(directory.path)


def test_what_lies_otherwise_is_converted_unless_its_places_are_wrong(
    tmp_path: Path, before: Rendered
) -> None:
    dealt = with_zero(other(tmp_path), round_robin_gradients=True)
    assert needs_conversion(before, dealt) and needs_conversion(dealt, before)
    assert never_converted(before, dealt) is None
    obstacle = never_converted(dealt, before)
    assert obstacle is not None and obstacle[0] == "zero_optimization.round_robin_gradients"


@pytest.mark.parametrize(
    ("sections", "dtype"),
    [
        ({"bf16": {"enabled": True}}, "bf16"),
        ({"bfloat16": {"enabled": True}}, "bf16"),
        ({"bf16": {"enabled": False}, "bfloat16": {"enabled": True}}, "fp32"),
        ({"bf16": None, "bfloat16": {"enabled": True}}, "bf16"),
        ({"fp16": {"enabled": True}}, "fp16"),
    ],
)
def test_the_old_name_of_bf16_counts_where_the_new_one_is_not_there(
    sections: dict[str, Any], dtype: str
) -> None:
    """As the engine reads them (runtime/precision_config.py:34)."""
    assert dtype_of(sections) == dtype


def test_a_run_keeps_each_plan_once(tmp_path: Path, before: Rendered) -> None:
    run, now = tmp_path / "run", other(tmp_path, zero_stage=0)
    first = record_plan(run, before.path)
    assert record_plan(run, before.path) == first == run / "plans" / "1"
    (run / "plans" / "2").mkdir()  # half of one
    second = record_plan(run, now.path)
    assert (second.name, next_plan(run).name) == ("3", "4")
    assert recorded_plans(run) == [first, second]
    assert record_plan(run, second) == second
    record = CheckpointRecord(step=1, plan_sha256=now.plan_sha256, layout=now.layout, files={})
    found = plan_of_checkpoint(run, record)
    assert found is not None and found.path == second
    assert plan_of_checkpoint(run, record.model_copy(update={"plan_sha256": "0" * 64})) is None
