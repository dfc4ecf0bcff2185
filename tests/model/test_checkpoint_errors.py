from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.model.checkpoint_worker import rendered_of
from vdsgen.errors import VdsgenError
from vdsgen.model import checkpoint
from vdsgen.model.checkpoint import CheckpointError
from vdsgen.model.soundness import last_sound
from vdsgen.spec.checkpoints import read_checkpoints, shared_out
from vdsgen.spec.training import Saving

LAST_TWO = Saving(keep=2)
CONFIG = {"train_batch_size": 1, "train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": 1}


@pytest.fixture(autouse=True)
def one_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr("vdsgen.model.checkpoint.dist.barrier", lambda: None)
    alone = SimpleNamespace(get_world_size=lambda: 1, get_rank=lambda: 0)
    monkeypatch.setattr("vdsgen.model.soundness.dist", alone)
    monkeypatch.setattr("vdsgen.model.soundness.known_to_all", lambda find: find())
    monkeypatch.setattr("vdsgen.model.soundness.everybodys", lambda answer: [answer()])


def save(run: Path, step: int, write: Callable[[Path], None], saving: Saving = LAST_TWO) -> None:
    """Saves with an engine whose `save_checkpoint` does what `write` does to the checkpoint's folder."""

    def save_checkpoint(folder: str, tag: str, **_: Any) -> None:
        target = Path(folder, tag)
        target.mkdir(parents=True)
        write(target)

    inner = SimpleNamespace(save_checkpoint=save_checkpoint, optimizer=None, module=torch.nn.Linear(1, 1))
    engine: Any = SimpleNamespace(engine=inner, compressor=None, average=None)
    checkpoint.save(engine, run, step, rendered_of(CONFIG), saving)


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


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(bytes(data))


def test_a_flipped_bit_is_named_and_the_checkpoint_before_is_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path, 1, good)
    save(tmp_path, 2, good)
    weights = tmp_path / "checkpoints" / "step-00000002" / "weights.pt"
    flip(weights, 8 * (weights.stat().st_size // 2) + 3)
    folder, record = last_sound(tmp_path)
    assert (folder.name, record.step) == ("step-00000001", 1)
    said = capsys.readouterr().out
    assert f"{weights.parent} is damaged (weights.pt: other bytes than were written)" in said


def test_a_truncated_file_is_named_and_the_checkpoint_before_is_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path, 1, good)
    save(tmp_path, 2, good)
    weights = tmp_path / "checkpoints" / "step-00000002" / "weights.pt"
    size = weights.stat().st_size
    weights.write_bytes(weights.read_bytes()[:-1])
    assert last_sound(tmp_path)[1].step == 1
    assert f"weights.pt: {size - 1} bytes, should be {size} bytes" in capsys.readouterr().out


def test_young_checkpoints_stay_besides_the_last(tmp_path: Path) -> None:
    saving = Saving(keep=1, keep_hours=2)
    for step, hours in ((1, 5.0), (2, 1.5), (3, 0.5), (4, 0.0)):
        save(tmp_path, step, good, saving)
        record = tmp_path / "checkpoints" / f"step-{step:08d}" / "complete.json"
        os.utime(record, (0, record.stat().st_mtime - 3600 * hours))
    save(tmp_path, 5, good, saving)
    assert [record.step for record in read_checkpoints(tmp_path)[0].values()] == [2, 3, 4, 5]


def test_where_every_checkpoint_is_damaged_nothing_is_resumed(tmp_path: Path) -> None:
    save(tmp_path, 1, good)
    flip(tmp_path / "checkpoints" / "step-00000001" / "weights.pt", 80)
    with pytest.raises(VdsgenError, match="has no sound checkpoint"):
        last_sound(tmp_path)


def test_checkpoints_of_versions_that_did_not_hash_are_used(tmp_path: Path) -> None:
    save(tmp_path, 1, good)
    record = tmp_path / "checkpoints" / "step-00000001" / "complete.json"
    content = json.loads(record.read_text())
    del content["sha256"], content["record_sha256"]
    record.write_text(json.dumps(content))
    assert last_sound(tmp_path)[1].step == 1


@given(st.dictionaries(st.text(min_size=1, max_size=4), st.integers(0, 10**6)), st.integers(1, 5))
def test_shares_cover_every_file_once_and_are_even(sizes: dict[str, int], shares: int) -> None:
    lists = shared_out(sizes, shares)
    assert sorted(name for names in lists for name in names) == sorted(sizes)
    loads = [sum(sizes[name] for name in names) for names in lists]
    assert max(loads) - min(loads) <= max(sizes.values(), default=0)


def test_an_altered_record_is_named_and_the_checkpoint_before_is_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path, 1, good)
    save(tmp_path, 2, good)
    record = tmp_path / "checkpoints" / "step-00000002" / "complete.json"
    record.write_text(record.read_text().replace('"step": 2', '"step": 3'))
    assert last_sound(tmp_path)[1].step == 1
    assert (
        f"{record.parent} is damaged (complete.json: other bytes than were written)"
        in capsys.readouterr().out
    )


def test_records_that_were_not_sealed_are_read(tmp_path: Path) -> None:
    save(tmp_path, 1, good)
    record = tmp_path / "checkpoints" / "step-00000001" / "complete.json"
    content = json.loads(record.read_text())
    del content["record_sha256"]
    record.write_text(json.dumps(content))
    assert last_sound(tmp_path)[1].step == 1
