"""Writing the universal format without ranks: a source of two parameters, on one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from vdsgen.errors import VdsgenError
from vdsgen.model.export.stored import Stored
from vdsgen.model.universal import convert
from vdsgen.model.universal.convert import source_of as read_source
from vdsgen.spec.checkpoints import RECORD, CheckpointRecord
from vdsgen.spec.run import Layout
from vdsgen.spec.universal import UNIVERSAL, Progress, read_universal

LAYOUT = Layout(
    pipeline_parallel_size=2, data_parallel_size=2, zero_stage=1, partition=(0, 1, 2), dtype="bf16"
)
WEIGHT = torch.arange(6.0).view(2, 3)


def stored(tensor: Tensor) -> Stored:
    return Stored(tuple(tensor.shape), tensor.dtype, lambda: tensor)


def source() -> convert.Source:
    trained = {"fp32": WEIGHT, "exp_avg": WEIGHT / 2, "exp_avg_sq": WEIGHT**2}
    return convert.Source(
        parameters={
            "0.weight": {key: stored(tensor) for key, tensor in trained.items()},
            "1.frozen": {"fp32": stored(torch.ones(4))},
        },
        averages={"0.weight": stored(WEIGHT + 1)},
        progress=Progress(
            step=7, samples=56, skipped_steps=1, optimizer_steps=6, learning_rate=0.1, schedule={},
            loss_scaling={"cur_scale": 512.0}, average_steps=7,
        ),
    )  # fmt: skip


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run directory with a checkpoint's record; one rank without a process group."""
    monkeypatch.setenv("RANK", "0")
    alone = SimpleNamespace(get_world_size=lambda: 1, get_rank=lambda: 0, barrier=lambda: None)
    monkeypatch.setattr(convert, "dist", alone)
    monkeypatch.setattr(convert, "known_to_all", lambda find: find())
    monkeypatch.setattr(convert, "everybodys", lambda answer: [answer()])
    monkeypatch.setattr(convert, "source_of", lambda *_: source())
    folder = tmp_path / "checkpoints" / "step-00000007"
    folder.mkdir(parents=True)
    (folder / RECORD).write_text(record().model_dump_json())
    return tmp_path


def record() -> CheckpointRecord:
    return CheckpointRecord(step=7, plan_sha256="0" * 64, layout=LAYOUT, files={})


def converted(run: Path) -> Path:
    return convert.universal_of(run, run / "checkpoints" / "step-00000007", record(), {})


def read(path: Path) -> Any:
    return torch.load(path, weights_only=True)


def test_what_is_where(run: Path) -> None:
    target = converted(run)
    assert target == run / UNIVERSAL / "step-00000007"
    files = {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()}
    assert files == {
        "zero/0.weight/fp32.pt", "zero/0.weight/exp_avg.pt", "zero/0.weight/exp_avg_sq.pt",
        "zero/0.weight/step.pt", "zero/1.frozen/fp32.pt", "zero/optimizer_state.pt", "ema/0.weight.pt",
        "mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_model_states.pt", "training.json", RECORD,
    }  # fmt: skip
    assert torch.equal(read(target / "zero/0.weight/exp_avg_sq.pt")["param"], WEIGHT**2)
    assert torch.equal(read(target / "ema/0.weight.pt")["param"], WEIGHT + 1)
    assert float(read(target / "zero/0.weight/step.pt")) == 6
    found = read_universal(target)
    assert found is not None and set(found.files) == set(found.sha256 or {}) == files - {RECORD}
    assert (found.step, found.layout) == (7, LAYOUT)


def test_what_is_sound_is_used_again(run: Path) -> None:
    weight = converted(run) / "zero/0.weight/fp32.pt"
    before = weight.stat().st_mtime_ns
    converted(run)
    assert weight.stat().st_mtime_ns == before


@pytest.mark.parametrize("what", ["no record", "damaged", "another source"])
def test_what_is_not_is_made_anew(run: Path, what: str) -> None:
    target = converted(run)
    weight = target / "zero/0.weight/fp32.pt"
    whole = weight.read_bytes()
    if what == "no record":
        (target / RECORD).unlink()
        weight.write_bytes(b"half")
    elif what == "damaged":
        weight.write_bytes(whole[:-1] + b"?")
    else:
        (run / "checkpoints" / "step-00000007" / RECORD).write_text(record().model_dump_json(indent=1))
        (target / "stale").touch()
    converted(run)
    assert weight.read_bytes() == whole
    assert not (target / "stale").exists()


def test_a_conversion_that_fails_leaves_no_record(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(VdsgenError, match=r"could not be converted for another layout.*No space left"):
        converted(run)
    assert read_universal(run / UNIVERSAL / "step-00000007") is None


def test_a_disk_with_too_little_room_is_refused_before(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(VdsgenError, match=r"takes .* GB in .*, 1e-08 GB are free"):
        converted(run)


def test_states_on_nvme_are_refused(tmp_path: Path) -> None:
    """DeepSpeed copies its swap files into the checkpoint as they are (runtime/engine.py:4934)."""
    swapped = record().model_copy(update={"files": {"offloaded_tensors/rank00/optimizer/1.tensor.swp": 8}})
    with pytest.raises(VdsgenError, match="NVMe"):
        read_source(tmp_path, swapped, {})
