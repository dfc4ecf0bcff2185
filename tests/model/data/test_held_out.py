"""Which clips are held out depends on their own paths, and training never sees them."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from tests.clips import damage_packets, write_numbered
from vdsgen.errors import VdsgenError
from vdsgen.model.data.held_out import _held_paths, hold_out
from vdsgen.model.data.index import Entry, Index, scan
from vdsgen.model.data.video import VideoInfo
from vdsgen.spec.data import Data
from vdsgen.spec.training import Validation


def data_of(folder: Path, frames: int = 8) -> Data:
    return Data(videos=str(folder), frames=frames, height=32, width=32, workers=0)


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    for number in range(6):
        write_numbered(tmp_path / "clips" / f"{number}.mp4", 10, rate=10)
    return tmp_path / "clips"


def paths(index: Index) -> list[str]:
    return [entry.path for entry in index.entries]


def named(*names: str) -> Index:
    """Of clips that are not there: the split looks at paths alone."""
    info = VideoInfo(frames=10, frame_rate=Fraction(10), width=64, height=48)
    return Index("nowhere", tuple(Entry(name, info, 0, "") for name in names))


def test_a_fraction_is_held_out_and_never_trained_on(clips: Path) -> None:
    index, data = scan(data_of(clips)), data_of(clips)
    training, held = hold_out(index, data, Validation(fraction=0.4))
    assert set(paths(training)).isdisjoint(paths(held))
    assert sorted(paths(training) + paths(held)) == paths(index)
    assert paths(held), "at least one"
    again, held_again = hold_out(index, data, Validation(fraction=0.4, clips=1))
    assert again == training, "how many are looked at changes nothing for training"
    assert paths(held_again) == paths(held)[:1]


def test_the_smallest_fraction_holds_out_one(clips: Path) -> None:
    training, held = hold_out(scan(data_of(clips)), data_of(clips), Validation(fraction=1e-9))
    assert len(held.entries) == 1 and len(training.entries) == 5


def test_adding_clips_moves_none_between_training_and_validation(clips: Path) -> None:
    few = scan(data_of(clips))
    for number in range(6, 9):
        write_numbered(clips / f"{number}.mp4", 10, rate=10)
    many = scan(data_of(clips))
    validation = Validation(fraction=0.4, clips=100)
    before, after = (hold_out(index, data_of(clips), validation) for index in (few, many))
    assert set(paths(before[0])) <= set(paths(after[0]))
    assert set(paths(before[1])) <= set(paths(after[1]))


def test_a_fraction_is_about_that_share_of_many_clips() -> None:
    held = _held_paths(named(*(f"clip {number}.mp4" for number in range(2000))), 0.1)
    assert 150 < len(held) < 250


def test_clips_of_a_folder_are_used_and_training_keeps_all(clips: Path, tmp_path: Path) -> None:
    write_numbered(tmp_path / "held" / "x.mp4", 10, rate=10)
    write_numbered(tmp_path / "held" / "y.mp4", 10, rate=10)
    damage_packets(tmp_path / "held" / "y.mp4", range(10))
    index = scan(data_of(clips))
    training, held = hold_out(index, data_of(clips), Validation(videos=str(tmp_path / "held")))
    assert training == index
    assert paths(held) == ["x.mp4"], "what cannot be read is not looked at"


def test_holding_out_everything_is_refused(clips: Path) -> None:
    with pytest.raises(VdsgenError, match=r"leaves none of 8 x 32 x 32 to train on"):
        hold_out(scan(data_of(clips)), data_of(clips), Validation(fraction=0.999999))
