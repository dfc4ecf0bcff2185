"""A folder becomes a list of usable clips in the order of their names, and every other file a reason."""

from __future__ import annotations

import logging
import os
import shutil
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.clips import cut_off, write_numbered
from vdsgen.errors import VdsgenError
from vdsgen.model.data.index import Skipped, last_start, report, scan
from vdsgen.model.data.video import VideoInfo
from vdsgen.spec.data import ClipSize, Data


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 frames at 10 a second."""
    return write_numbered(tmp_path_factory.mktemp("clip") / "clip.mp4", 20, rate=10)


def data_of(folder: Path, *, frames: int = 8, frame_rate: float | None = None) -> Data:
    return Data(videos=str(folder), frames=frames, height=48, width=64, frame_rate=frame_rate)


def put(clip: Path, *places: Path) -> None:
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clip, place)


def test_clips_come_in_the_order_of_their_names_whatever_the_number_of_threads(
    clip: Path, tmp_path: Path
) -> None:
    names = ["b/z.mp4", "b.mp4", "a/2.mp4", "a/10.mp4", "B.MP4", "é.mp4"]
    put(clip, *(tmp_path / name for name in reversed(names)))
    one, many = scan(data_of(tmp_path), threads=1), scan(data_of(tmp_path), threads=8)
    assert [entry.path for entry in one.entries] == sorted(names)
    assert one == many and one.fingerprint == many.fingerprint


def test_what_cannot_be_used_is_skipped_with_its_reason(
    clip: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(clip, tmp_path / "good.mp4", tmp_path / "cut.mp4")
    cut_off(tmp_path / "cut.mp4", 0.3)
    (tmp_path / "empty.webm").touch()
    (tmp_path / "text.mkv").write_text("not a video")
    (tmp_path / "gone.mov").symlink_to(tmp_path / "nowhere.mov")
    write_numbered(tmp_path / "short.mp4", 7, rate=10)
    os.mkfifo(tmp_path / "pipe.avi")
    (tmp_path / "notes.txt").write_text("no clip")
    (tmp_path / "notes.mp4.txt").write_text("no clip")
    index = scan(data_of(tmp_path))
    assert [entry.path for entry in index.entries] == ["good.mp4"]
    reasons = {case.path: case.reason for case in index.skipped}
    assert reasons.pop("cut.mp4").startswith(("cannot be decoded", "is cut off"))
    assert reasons.pop("text.mkv").startswith("cannot be decoded")
    assert reasons == {
        "empty.webm": "is empty",
        "gone.mov": "cannot be read (No such file or directory)",
        "pipe.avi": "is not a regular file",
        "short.mp4": "has 7 frames at 10 a second, 8 are needed",
    }
    with caplog.at_level(logging.INFO, "vdsgen.data"):
        report(index, data_of(tmp_path))
    assert "1 of 7 clips" in caplog.text
    for case in index.skipped:
        assert f"skipped {case.path}: {case.reason}" in caplog.text


def test_hidden_files_and_folders_are_left_out(clip: Path, tmp_path: Path) -> None:
    put(clip, tmp_path / "a.mp4", tmp_path / "._a.mp4", tmp_path / ".trash" / "b.mp4")
    index = scan(data_of(tmp_path))
    assert [entry.path for entry in index.entries] == ["a.mp4"] and not index.skipped


def test_links_are_followed_and_loops_end(clip: Path, tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    put(clip, folder / "a" / "x.mp4", tmp_path / "elsewhere" / "y.mp4")
    (folder / "a" / "up").symlink_to(folder)
    (folder / "b").symlink_to(tmp_path / "elsewhere")
    (folder / "c").symlink_to(tmp_path / "elsewhere")
    assert [entry.path for entry in scan(data_of(folder)).entries] == ["a/x.mp4", "b/y.mp4"]


def test_captions_and_their_problems_are_in_the_index(clip: Path, tmp_path: Path) -> None:
    put(clip, tmp_path / "a.mp4", tmp_path / "b.mp4", tmp_path / "c.mp4")
    (tmp_path / "a.txt").write_text("a caption\n")
    (tmp_path / "b.txt").write_bytes(b"\xff")
    index = scan(data_of(tmp_path))
    assert [entry.caption for entry in index.entries] == ["a caption", "\ufffd", ""]
    assert index.warnings == (Skipped("b.mp4", "its caption b.txt is not UTF-8 (byte 0)"),)


def test_the_fingerprint_changes_with_names_captions_and_lengths(clip: Path, tmp_path: Path) -> None:
    put(clip, tmp_path / "a.mp4")
    seen = {scan(data_of(tmp_path)).fingerprint}
    assert scan(data_of(tmp_path)).fingerprint in seen
    (tmp_path / "a.txt").write_text("a caption")
    seen.add(scan(data_of(tmp_path)).fingerprint)
    put(clip, tmp_path / "b.mp4")
    seen.add(scan(data_of(tmp_path)).fingerprint)
    write_numbered(tmp_path / "b.mp4", 21, rate=10)
    seen.add(scan(data_of(tmp_path)).fingerprint)
    assert len(seen) == 4


def test_small_videos_are_counted(clip: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(clip, tmp_path / "a.mp4")
    data = Data(videos=str(tmp_path), frames=8, height=96, width=96)
    report(scan(data), data)
    assert "1 of 1 clips are smaller than 96 x 96" in caplog.text


def test_hundreds_of_bad_files_are_named_in_part_and_counted(
    clip: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(clip, tmp_path / "good.mp4")
    for number in range(25):
        (tmp_path / f"bad{number:02}.mp4").touch()
    report(scan(data_of(tmp_path)), data_of(tmp_path))
    assert caplog.text.count("is empty") == 20 and "skipped 5 more" in caplog.text


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        ("missing", "does not exist"),
        ("file", "is not a folder"),
        ("empty", "holds no file"),
        ("text", "holds 1 files, none of them .avi, .gif"),
        ("short", "none of the 1 videos in .* can be used:\n    clip.mp4: has 20 frames at 10 a second"),
        ("broken", "none of the 1 videos in .* can be used:\n    bad.mp4: is empty"),
    ],
)
def test_a_folder_without_a_usable_clip_says_what_was_found(
    clip: Path, tmp_path: Path, prepare: str, message: str
) -> None:
    folder = tmp_path / "videos"
    if prepare == "file":
        folder.touch()
    elif prepare != "missing":
        folder.mkdir()
    if prepare == "text":
        (folder / "a.txt").touch()
    if prepare == "short":
        put(clip, folder / "clip.mp4")
    if prepare == "broken":
        (folder / "bad.mp4").touch()
    with pytest.raises(VdsgenError, match=message) as caught:
        scan(data_of(folder, frames=100))
    assert caught.value.exit_code == 2 and caught.value.remedy and "data.videos" in caught.value.message


def test_bytes_that_are_no_text_in_names_can_be_printed(clip: Path, tmp_path: Path) -> None:
    put(clip, tmp_path / "good.mp4")
    (tmp_path / os.fsdecode(b"b\xff\n.mp4")).touch()
    index = scan(data_of(tmp_path))
    assert len(index.skipped) == 1 and index.fingerprint
    report(index, data_of(tmp_path))
    shutil.copy(clip, tmp_path / os.fsdecode(b"c\xff.mp4"))
    assert len(scan(data_of(tmp_path)).entries) == 2 and scan(data_of(tmp_path)).fingerprint


@given(
    total=st.integers(1, 300),
    source_rate=st.sampled_from([Fraction(10), Fraction(25), Fraction(30000, 1001)]),
    frames=st.integers(1, 40),
    frame_rate=st.one_of(st.none(), st.sampled_from([4.0, 8.0, 24.0, 29.97, 60.0])),
)
def test_the_last_start_is_the_last_from_which_all_frames_exist(
    total: int, source_rate: Fraction, frames: int, frame_rate: float | None
) -> None:
    def last_frame(start: int) -> int:
        step = Fraction(1) if frame_rate is None else source_rate / Fraction(frame_rate)
        return int(start + (frames - 1) * step + Fraction(1, 2))

    start = last_start(VideoInfo(total, source_rate, 64, 64), frames, frame_rate)
    if start >= 0:
        assert last_frame(start) <= total - 1
    assert last_frame(max(start, -1) + 1) > total - 1


def test_a_clip_is_of_use_where_it_is_long_enough_for_one_of_the_sizes(
    clip: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(clip, tmp_path / "b.mp4")
    for name, frames in (("a.mp4", 12), ("c.mp4", 7), ("d.mp4", 3)):
        write_numbered(tmp_path / name, frames, rate=10)
    data = data_of(tmp_path).model_copy(
        update={
            "buckets": (
                ClipSize(frames=4, height=96, width=64),
                ClipSize(frames=16, height=48, width=64),
            )
        }
    )
    index = scan(data)
    assert [entry.path for entry in index.entries] == ["a.mp4", "b.mp4", "c.mp4"]
    assert [case.reason for case in index.skipped] == ["has 3 frames at 10 a second, 4 are needed"]
    assert [list(index.long_enough(data, size)) for size in data.sizes] == [[0, 1], [0, 1, 2], [1]]
    with caplog.at_level(logging.INFO, "vdsgen.data"):
        report(index, data)
    for line in (
        "2 of them are long enough for 8 x 48 x 64",
        "3 of them are long enough for 4 x 96 x 64",
        "3 of 3 clips are smaller than 96 x 64 (height x width) and are enlarged",
        "1 of them are long enough for 16 x 48 x 64",
    ):
        assert line in caplog.text


def test_a_size_that_no_clip_is_long_enough_for_is_named(clip: Path, tmp_path: Path) -> None:
    put(clip, tmp_path / "a.mp4")
    sizes = (ClipSize(frames=20, height=48, width=64), ClipSize(frames=21, height=48, width=64))
    data = data_of(tmp_path).model_copy(update={"buckets": sizes})
    with pytest.raises(
        VdsgenError, match=r"data.buckets\[1\]: none of the 1 clips .* for 21 frames"
    ) as raised:
        scan(data)
    assert raised.value.remedy is not None and "leave this size out" in raised.value.remedy
