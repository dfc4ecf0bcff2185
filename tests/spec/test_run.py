from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vdsgen.errors import VdsgenError
from vdsgen.spec.checkpoints import CheckpointRecord, read_checkpoints, tag_of
from vdsgen.spec.run import Layout, layout_of, read_json_object

BATCHES = {"train_batch_size": 16, "train_micro_batch_size_per_gpu": 2, "gradient_accumulation_steps": 4}
LAYOUT = Layout(pipeline_parallel_size=1, data_parallel_size=1, zero_stage=0, partition=(), dtype="fp32")


def checkpoint(run: Path, step: int, **files: bytes) -> Path:
    folder = run / "checkpoints" / tag_of(step)
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    record = CheckpointRecord(
        step=step,
        plan_sha256="0",
        layout=LAYOUT,
        files={name: len(content) for name, content in files.items()},
    )
    (folder / "complete.json").write_text(record.model_dump_json())
    return folder


def test_ranks_follow_from_batch_sizes_and_stages() -> None:
    layout = layout_of(
        {**BATCHES, "pipeline": {"stages": 3, "partition": [0, 2, 4, 6]}, "bf16": {"enabled": True}}
    )
    assert (layout.world_size, layout.data_parallel_size, layout.dtype) == (6, 2, "bf16")
    assert [layout.stage_of(rank) for rank in range(6)] == [0, 0, 1, 1, 2, 2]
    assert [layout.reads_clips(rank) for rank in range(6)] == [True, True, False, False, True, True]
    assert "3 pipeline x 2 data, ZeRO-0, bf16, stages at layers [0, 2, 4, 6]" in str(layout)


def test_ranks_that_share_blocks_are_neighbours_within_a_stage() -> None:
    layout = layout_of(
        {**BATCHES, "pipeline": {"stages": 2, "partition": [0, 3, 6], "tensor_parallel_size": 2}}
    )
    assert (layout.world_size, layout.data_parallel_size, layout.tensor_parallel_size) == (8, 2, 2)
    assert [layout.stage_of(rank) for rank in range(8)] == [0] * 4 + [1] * 4
    assert "2 pipeline x 2 data x 2 tensor, ZeRO-0" in str(layout)


def test_one_stage_has_no_boundaries_to_differ_in() -> None:
    assert layout_of(BATCHES) == layout_of({**BATCHES, "pipeline": {"stages": 1, "partition": [0, 6]}})


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"train_batch_size": 15}, r"train_batch_size \(15\) is no multiple"),
        ({"train_batch_size": "auto"}, "train_batch_size is 'auto'"),
        ({"gradient_accumulation_steps": True}, "gradient_accumulation_steps is True"),
        ({"pipeline": {"stages": 0}}, "pipeline_parallel_size"),
        ({"pipeline": {"stages": "2"}}, "pipeline_parallel_size"),
        ({"zero_optimization": {"stage": -1}}, "zero_stage"),
        ({"pipeline": {"tensor_parallel_size": 0}}, "tensor_parallel_size"),
    ],
)
def test_figures_that_make_no_layout_are_refused(changes: dict[str, Any], part: str) -> None:
    with pytest.raises(VdsgenError, match=part):
        layout_of({**BATCHES, **changes})


def test_only_whole_checkpoints_count_in_order_of_steps(tmp_path: Path) -> None:
    checkpoint(tmp_path, 100_000_000, a=b"aa")
    checkpoint(tmp_path, 7, a=b"aa", b=b"")
    (checkpoint(tmp_path, 8, a=b"aa") / "a").write_bytes(b"a")
    (checkpoint(tmp_path, 9, a=b"aa") / "a").unlink()
    (checkpoint(tmp_path, 10, a=b"aa") / "complete.json").unlink()
    (checkpoint(tmp_path, 11, a=b"aa") / "complete.json").write_text('{"step": ')
    (tmp_path / "checkpoints" / "latest").write_text("step-00000011")
    complete, incomplete = read_checkpoints(tmp_path)
    assert [record.step for record in complete.values()] == [7, 100_000_000]
    reasons = ("a: 1 bytes, should be 2", "a: missing", "half written", "cannot be read")
    assert len(incomplete) == len(reasons)
    for sentence, reason in zip(incomplete, reasons, strict=True):
        assert reason in sentence


def test_a_run_without_checkpoints_has_none(tmp_path: Path) -> None:
    assert read_checkpoints(tmp_path) == ({}, [])


@pytest.mark.parametrize(
    ("content", "part"), [(b"{", ":1:2: no valid JSON"), (b"[1]", "list"), (b"\xff", "UTF-8")]
)
def test_json_that_is_no_object_is_refused(tmp_path: Path, content: bytes, part: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(VdsgenError, match=part):
        read_json_object(path)
    path.write_text(json.dumps({"a": 1}))
    assert read_json_object(path) == {"a": 1}
