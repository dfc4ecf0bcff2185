"""Captions come from sidecar files alone; classes from a hash that never changes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdsgen.model.data.captions import MAX_CHARACTERS, Caption, class_of, label_of, read_caption


def caption_of(folder: Path, content: bytes) -> Caption:
    (folder / "clip.txt").write_bytes(content)
    return read_caption(folder / "clip.mp4")


def test_without_a_sidecar_the_caption_is_empty_and_says_nothing_of_names(tmp_path: Path) -> None:
    assert read_caption(tmp_path / "a man walking.mp4") == Caption("")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"  A red car.\r\n\n", "A red car."),
        (b"\xef\xbb\xbfWith a mark", "With a mark"),
        ("Grüße, 世界".encode(), "Grüße, 世界"),
        (b"two\nlines", "two\nlines"),
        (b" \n", ""),
    ],
)
def test_captions_are_utf8_and_stripped(tmp_path: Path, content: bytes, text: str) -> None:
    assert caption_of(tmp_path, content) == Caption(text)


def test_long_captions_are_cut_with_a_word(tmp_path: Path) -> None:
    caption = caption_of(tmp_path, b"x" * (MAX_CHARACTERS + 1))
    assert caption == Caption("x" * MAX_CHARACTERS, "its caption clip.txt is cut after 4096 characters")
    wide = caption_of(tmp_path, "é日𝄞".encode() * MAX_CHARACTERS)
    assert len(wide.text) == MAX_CHARACTERS and "\ufffd" not in wide.text and "cut" in wide.problem
    assert caption_of(tmp_path, "𝄞".encode() * MAX_CHARACTERS) == Caption("𝄞" * MAX_CHARACTERS)


def test_other_encodings_are_read_as_far_as_they_go_with_a_word(tmp_path: Path) -> None:
    caption = caption_of(tmp_path, "Gr\xfc\xdfe".encode("latin-1"))
    assert caption.text.startswith("Gr") and caption.text.endswith("e")
    assert caption.problem == "its caption clip.txt is not UTF-8 (byte 2)"


def test_a_folder_in_place_of_a_sidecar_is_a_problem_not_a_crash(tmp_path: Path) -> None:
    (tmp_path / "clip.txt").mkdir()
    assert "cannot be read" in read_caption(tmp_path / "clip.mp4").problem


def test_labels_are_captions_then_top_level_folders_then_nothing() -> None:
    assert label_of("walking/day/a.mp4", "a man walks") == "a man walks"
    assert label_of("walking/day/a.mp4", "") == "walking"
    assert label_of("a.mp4", "") is None


def test_classes_are_the_same_everywhere_and_for_ever() -> None:
    # int(hashlib.sha256(label.encode()).hexdigest()[:16], 16) % 10
    assert [class_of(label, 10) for label in ("walking", "running", "日本")] == [7, 0, 1]
    assert class_of(None, 10) == 10


@given(st.text(), st.integers(1, 10**6))
def test_classes_are_in_range(label: str, classes: int) -> None:
    assert 0 <= class_of(label, classes) < classes
