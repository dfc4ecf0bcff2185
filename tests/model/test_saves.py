"""Saving in the course of a run, one rank: what is complete when, and what becomes of a file that cannot be
written."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.model.checkpoint_worker import rendered_of
from vdsgen.model.background_writer import BackgroundCheckpointEngine
from vdsgen.model.checkpoint import CheckpointError
from vdsgen.model.metrics import DivergedError
from vdsgen.model.saves import Saves, read_saves
from vdsgen.spec.checkpoints import read_checkpoints
from vdsgen.spec.training import Saving

CONFIG = {"train_batch_size": 1, "train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": 1}


@pytest.fixture(autouse=True)
def one_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    alone = SimpleNamespace(
        get_world_size=lambda: 1,
        get_rank=lambda: 0,
        barrier=lambda: None,
        all_reduce=lambda *_, **__: None,
        ReduceOp=SimpleNamespace(MIN=None),
    )
    for module in ("checkpoint", "soundness", "saves"):
        monkeypatch.setattr(f"vdsgen.model.{module}.dist", alone)
    monkeypatch.setattr("vdsgen.model.soundness.known_to_all", lambda find: find())
    for module in ("soundness", "saves"):
        monkeypatch.setattr(f"vdsgen.model.{module}.everybodys", lambda answer: [answer()])
    monkeypatch.setattr(
        "deepspeed.runtime.checkpoint_engine.torch_checkpoint_engine.log_dist", lambda *_, **__: None
    )


class Slow:
    """A disk that writes when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.writes = threading.Event()
        write = BackgroundCheckpointEngine._written

        def written(engine: BackgroundCheckpointEngine, job: Any) -> str:
            assert self.writes.wait(30)
            return write(engine, job)

        monkeypatch.setattr(BackgroundCheckpointEngine, "_written", written)


def engine_of(weights: torch.Tensor) -> Any:
    """Saves one file, through its checkpoint engine as DeepSpeed does."""
    engine = SimpleNamespace(
        _config=SimpleNamespace(checkpoint_config={"checkpoint_serialization": True}),
        optimizer=None,
        module=torch.nn.Linear(1, 1),
    )

    def save_checkpoint(folder: str, tag: str, **_: Any) -> None:
        target = Path(folder, tag)
        target.mkdir(parents=True, exist_ok=True)
        engine.checkpoint_engine.save({"weights": weights}, str(target / "weights.pt"))

    engine.save_checkpoint = save_checkpoint
    return SimpleNamespace(engine=engine, compressor=None, average=None, device=torch.device("cpu"))


@pytest.fixture
def saves(tmp_path: Path, weights: torch.Tensor) -> Iterator[Saves]:
    with saves_of(tmp_path, weights) as opened:
        yield opened


@pytest.fixture
def weights() -> torch.Tensor:
    return torch.zeros(1_000_000)


def saves_of(run: Path, weights: torch.Tensor) -> Saves:
    return Saves(engine_of(weights), run, rendered_of(CONFIG), Saving(keep=2, asynchronous=True), 0)


def complete_steps(run: Path) -> list[int]:
    return [record.step for record in read_checkpoints(run)[0].values()]


def test_a_checkpoint_counts_once_all_of_it_is_on_the_disk(
    tmp_path: Path, saves: Saves, weights: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Slow(monkeypatch)
    saves.save(1)
    weights += 1
    saves.after_step()
    assert saves.is_writing
    assert complete_steps(tmp_path) == []
    assert not (tmp_path / "checkpoints" / "latest").exists()
    disk.writes.set()
    while not complete_steps(tmp_path):
        saves.after_step()
    assert complete_steps(tmp_path) == [1]
    assert (tmp_path / "checkpoints" / "latest").read_text() == "step-00000001"
    saved = torch.load(tmp_path / "checkpoints" / "step-00000001" / "weights.pt", weights_only=True)
    assert torch.equal(saved["weights"], torch.zeros_like(weights))
    (note,) = read_saves(tmp_path)
    assert note["step"] == 1
    assert 0 < note["blocking_seconds"] < note["background_seconds"]


def test_a_save_waits_for_the_one_before(
    tmp_path: Path, saves: Saves, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Slow(monkeypatch)
    saves.save(1)
    threading.Timer(0.1, disk.writes.set).start()
    saves.save(2)
    assert complete_steps(tmp_path) == [1]
    saves.finish()
    assert complete_steps(tmp_path) == [1, 2]
    assert [note["step"] for note in read_saves(tmp_path)] == [1, 2]


@pytest.mark.parametrize("end", ["after_step", "finish", "next save"])
def test_a_file_that_cannot_be_written_ends_the_run_by_name(tmp_path: Path, saves: Saves, end: str) -> None:
    saves.save(1)
    saves.finish()
    engine: Any = saves._engine
    save_checkpoint = engine.engine.save_checkpoint

    def onto_a_full_disk(folder: str, tag: str, **more: Any) -> None:
        Path(folder, tag).mkdir(exist_ok=True)
        (Path(folder, tag) / "weights.pt").symlink_to("/dev/full")
        save_checkpoint(folder, tag, **more)

    engine.engine.save_checkpoint = onto_a_full_disk
    saves.save(2)
    with pytest.raises(
        CheckpointError, match=r"step-00000002 could not be written: rank 0, weights\.pt[^$]*free space"
    ) as caught:
        if end == "next save":
            saves.save(3)
        elif end == "finish":
            saves.finish()
        while end == "after_step":
            saves.after_step()
    assert caught.value.exit_code == 1
    assert complete_steps(tmp_path) == [1]
    assert (tmp_path / "checkpoints" / "latest").read_text() == "step-00000001"


def test_training_that_diverges_keeps_what_was_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Slow(monkeypatch)
    with pytest.raises(DivergedError), saves_of(tmp_path, torch.zeros(3)) as saves:
        saves.save(1)
        threading.Timer(0.1, disk.writes.set).start()
        raise DivergedError("the loss is not a number")
    assert complete_steps(tmp_path) == [1]


def test_an_error_of_one_rank_waits_for_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Slow(monkeypatch)
    with pytest.raises(OSError, match="broken"), saves_of(tmp_path, torch.zeros(3)) as saves:
        saves.save(1)
        raise OSError("broken")
    assert complete_steps(tmp_path) == []
    disk.writes.set()
