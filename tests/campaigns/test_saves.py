"""The campaign itself: it finds what it should, and would tell what was lost."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from tests.campaigns import saves
from tests.model.checkpoint_worker import rendered_of
from vdsgen.model import soundness
from vdsgen.spec.checkpoints import CHECKPOINTS, tag_of

CONFIG = {"train_batch_size": 1, "train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": 1}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two checkpoints."""
    for step in (saves.BEFORE, saves.LAST):
        folder = tmp_path / "run" / CHECKPOINTS / tag_of(step)
        folder.mkdir(parents=True)
        torch.save(torch.full((1000,), step), folder / "weights.pt")
        with saves.one_rank():
            soundness.vouch(folder, step, rendered_of(CONFIG), {})
        (folder.parent / saves.LATEST).write_text(folder.name)
    return tmp_path / "run"


def test_nothing_is_lost_in_a_few_of_each(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saves, "COUNTS", dict.fromkeys(saves.COUNTS, 6))
    found = saves.broken_afterwards(run, tmp_path, seed=2)
    assert {kind: row["lost"] for kind, row in found.items()} == {kind: [] for kind in saves.COUNTS}
    assert saves.found_in(run)[0] == saves.LAST, "copies are broken"


def test_what_was_lost_is_told(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without hashes, flipped bits go unseen."""
    monkeypatch.setattr(saves, "COUNTS", {"flipped_bit": 3})
    monkeypatch.setattr(soundness, "damage", lambda *_: None)
    found = saves.broken_afterwards(run, tmp_path, seed=2)
    assert len(found["flipped_bit"]["lost"]) == 3


def test_every_kind_of_damage_has_words_and_breaks_something(run: Path) -> None:
    damage = saves.Damage(random.Random(1))
    assert set(saves.COUNTS) < set(saves.WORDS)
    for kind in saves.COUNTS:
        assert callable(getattr(damage, kind))
