from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from vdsgen.model.background_writer import BackgroundCheckpointEngine, HostMemory
from vdsgen.model.checkpoint import WRITER_SAYS

CONFIG = SimpleNamespace(checkpoint_config={"checkpoint_serialization": True})


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch) -> BackgroundCheckpointEngine:
    monkeypatch.setattr(
        "deepspeed.runtime.checkpoint_engine.torch_checkpoint_engine.log_dist", lambda *_, **__: None
    )
    return BackgroundCheckpointEngine(CONFIG)


class Scaler:
    """Pickled by its attributes, as DeepSpeed's loss scalers are."""

    def __init__(self) -> None:
        self.scale = torch.tensor([512.0])


def test_a_copy_does_not_follow_what_it_was_made_of() -> None:
    weights, scaler = torch.arange(6.0).view(2, 3), Scaler()
    state: dict[str, Any] = {"weights": weights, "groups": [{"step": 3}], "scaler": scaler, "same": weights}
    copied = HostMemory().copy_of(state)
    weights += 1
    scaler.scale *= 2
    state["groups"][0]["step"] = 4
    assert torch.equal(copied["weights"], torch.arange(6.0).view(2, 3))
    assert copied["scaler"].scale.item() == 512
    assert copied["groups"] == [{"step": 3}]
    assert copied["same"] is copied["weights"]


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(12.0).view(3, 4).t(),
        torch.arange(1000, dtype=torch.bfloat16)[10:14],
        torch.empty(0, 3),
        torch.tensor(7),
        torch.nn.Parameter(torch.ones(2), requires_grad=False),
        torch.ones(2, requires_grad=True),
        torch.tensor([True, False]),
    ],
    ids=["transposed", "view", "empty", "number", "parameter", "trained", "bool"],
)
def test_copies_are_equal_and_no_larger_than_they_look(tensor: torch.Tensor) -> None:
    copied = HostMemory().copy_of([tensor])[0]
    assert type(copied) is type(tensor)
    assert (copied.dtype, copied.shape, copied.requires_grad) == (
        tensor.dtype,
        tensor.shape,
        tensor.requires_grad,
    )
    assert torch.equal(copied, tensor)
    assert copied.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()


def test_what_is_saved_under_two_names_is_copied_once() -> None:
    memory, weights = HostMemory(), torch.ones(100)
    copied = memory.copy_of({"module": weights.detach(), "frozen": torch.nn.Parameter(weights)})
    assert memory.held_bytes == 400
    assert copied["module"].data_ptr() == copied["frozen"].data_ptr()
    assert isinstance(copied["frozen"], torch.nn.Parameter)


def test_memory_is_used_again_once_it_is_written() -> None:
    memory = HostMemory()
    state = [torch.ones(100), torch.ones(50)]
    memory.copy_of(state)
    assert memory.held_bytes == 600
    memory.release()
    memory.copy_of(state)
    assert memory.held_bytes == 600
    memory.copy_of(state)
    assert memory.held_bytes == 1200


def test_files_are_those_of_the_moment_of_the_save(
    writer: BackgroundCheckpointEngine, tmp_path: Path
) -> None:
    weights = torch.zeros(100_000)
    writer.begin(tmp_path)
    for name in ("a.pt", "b.pt"):
        writer.save({"weights": weights}, str(tmp_path / name))
        weights += 1
    save = writer.end()
    weights += 1
    assert save.done.wait(30)
    assert save.error is None
    assert save.seconds > 0
    for value, name in enumerate(("a.pt", "b.pt")):
        saved = torch.load(tmp_path / name, weights_only=True)["weights"]
        assert torch.equal(saved, torch.full_like(saved, float(value)))
        assert save.hashes[name] == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()


def test_the_first_file_that_cannot_be_written_is_named_and_the_next_save_goes_on(
    writer: BackgroundCheckpointEngine, tmp_path: Path
) -> None:
    (tmp_path / "full.pt").symlink_to("/dev/full")
    writer.begin(tmp_path)
    for name in ("good.pt", "full.pt", "after.pt"):
        writer.save({"weights": torch.ones(1_000_000)}, str(tmp_path / name))
    save = writer.end()
    assert save.done.wait(30)
    assert save.error is not None
    assert save.error.startswith("full.pt: ")
    assert any(part in save.error for part in WRITER_SAYS)
    assert set(save.hashes) == {"good.pt"}
    assert not (tmp_path / "after.pt").exists()
    writer.begin(tmp_path)
    writer.save({}, str(tmp_path / "again.pt"))
    again = writer.end()
    assert again.done.wait(30)
    assert set(again.hashes) == {"again.pt"}
