from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.model.checkpoint_worker import rendered_of
from vdsgen.model import checkpoint
from vdsgen.model.checkpoint import CheckpointError
from vdsgen.spec.run import read_checkpoints

CONFIG = {"train_batch_size": 1, "train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": 1}


@pytest.fixture(autouse=True)
def one_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr("vdsgen.model.checkpoint.dist.barrier", lambda: None)


def save(run: Path, step: int, write: Callable[[Path], None]) -> None:
    """Saves with an engine whose `save_checkpoint` does what `write` does to the checkpoint's folder."""

    def save_checkpoint(folder: str, tag: str, **_: Any) -> None:
        target = Path(folder, tag)
        target.mkdir(parents=True)
        write(target)

    engine: Any = SimpleNamespace(
        engine=SimpleNamespace(save_checkpoint=save_checkpoint), compressor=None, average=None
    )
    checkpoint.save(engine, run, step, rendered_of(CONFIG), keep=2)


def good(target: Path) -> None:
    torch.save(torch.ones(3), target / "weights.pt")


def full_disk(target: Path) -> None:
    (target / "weights.pt").touch()
    torch.save(torch.ones(1_000_000), "/dev/full")


def test_a_full_disk_leaves_the_checkpoints_before_as_they_were(tmp_path: Path) -> None:
    save(tmp_path, 1, good)
    with pytest.raises(CheckpointError, match=r"step-00000002 could not be written[^$]*free space") as caught:
        save(tmp_path, 2, full_disk)
    assert caught.value.exit_code == 1
    complete, incomplete = read_checkpoints(tmp_path)
    assert [record.step for record in complete.values()] == [1]
    assert "half written" in incomplete[0]
    assert (tmp_path / "checkpoints" / "latest").read_text() == "step-00000001"
    save(tmp_path, 2, good)
    assert [record.step for record in read_checkpoints(tmp_path)[0].values()] == [1, 2]


def test_a_lost_rank_is_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    def lost(_: Path) -> None:
        raise RuntimeError("[gloo/transport/tcp/pair.cc:537] Connection reset by peer")

    with pytest.raises(RuntimeError, match="Connection reset"):
        save(tmp_path, 1, lost)


def test_old_checkpoints_go_only_when_the_new_one_is_complete(tmp_path: Path) -> None:
    seen: list[list[int]] = []

    def watched(target: Path) -> None:
        good(target)
        seen.append([record.step for record in read_checkpoints(tmp_path)[0].values()])

    for step in (1, 2, 3, 4):
        save(tmp_path, step, watched)
    assert seen == [[], [1], [1, 2], [2, 3]]
    assert [record.step for record in read_checkpoints(tmp_path)[0].values()] == [3, 4]
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "latest",
        "step-00000003",
        "step-00000004",
    ]


def test_saving_a_step_again_replaces_its_damaged_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 1, good)
    (tmp_path / "checkpoints" / "step-00000001" / "weights.pt").write_bytes(b"")
    (tmp_path / "checkpoints" / "step-00000001" / "left over").touch()
    save(tmp_path, 1, good)
    (record,) = read_checkpoints(tmp_path)[0].values()
    assert set(record.files) == {"weights.pt"}
