"""What is said about a clip: its caption, and the class it is hashed to."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

MAX_CHARACTERS = 4096
"""A caption is cut here; text encoders take far fewer tokens."""


@dataclass(frozen=True, slots=True)
class Caption:
    text: str
    problem: str = ""
    """What was wrong with the file, in words that follow a clip's name; empty if nothing."""


def read_caption(video: Path) -> Caption:
    """The text of `clip.txt` beside `clip.mp4`: UTF-8, stripped, cut at MAX_CHARACTERS.

    An empty caption where there is none. File and folder names never become captions: they say how
    somebody stored the clip, not what it shows.
    """
    sidecar = video.with_suffix(".txt")
    try:
        # Four bytes are the most that UTF-8 spends on a character.
        with sidecar.open("rb") as file:
            raw = file.read(4 * MAX_CHARACTERS + 4)
    except FileNotFoundError:
        return Caption("")
    except OSError as error:
        return Caption("", f"its caption {sidecar.name} cannot be read ({error.strerror})")
    whole = len(raw) <= 4 * MAX_CHARACTERS
    problem = ""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        text = raw.decode("utf-8-sig", "replace")
        if whole or error.end < len(raw) - 3:  # else only the cut went through a character
            problem = f"its caption {sidecar.name} is not UTF-8 (byte {error.start})"
    text = text.strip()
    if len(text) > MAX_CHARACTERS or not whole:
        problem = problem or f"its caption {sidecar.name} is cut after {MAX_CHARACTERS} characters"
    return Caption(text[:MAX_CHARACTERS].rstrip(), problem)


def label_of(path: str, caption: str) -> str | None:
    """What a clip is classified by: its caption; without one, its top-level sub-folder (the usual layout
    of labelled clips); without either, nothing.

    `path` is relative to the folder of clips, with forward slashes. The file's own name is no label:
    it would make each clip a class of its own.
    """
    if caption:
        return caption
    folder, slash, _ = path.partition("/")
    return folder if slash else None


def class_of(label: str | None, classes: int) -> int:
    """A label's class in 0 .. classes - 1, the same on every machine; `classes` ('no condition') for None."""
    if label is None:
        return classes
    digest = hashlib.sha256(label.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") % classes
