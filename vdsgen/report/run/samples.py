"""Sample videos inside the page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from vdsgen.report.run.subject import RunSubject
from vdsgen.report.section import Media, Section
from vdsgen.spec.run import SAMPLES

NAME = re.compile(r"step-([0-9]{8,12})\.(mp4|webm|gif)", re.ASCII)
MOST_BYTES = 1_000_000
"""Of all videos of a page, which grows by a third more (base64)."""
MOST_VIDEOS = 8
"""Of all runs of a page."""
MEDIA_TYPES = {"mp4": "video/mp4", "webm": "video/webm", "gif": "image/gif"}
SIGNATURES = {"mp4": (4, b"ftyp"), "webm": (0, b"\x1a\x45\xdf\xa3"), "gif": (0, b"GIF8")}
"""Where and what a file of each kind says that it is."""


def samples_section(subjects: Sequence[RunSubject]) -> Section | None:
    """The last video of each run, the first, and some between, as many as a page can hold; None where there
    is none."""
    found = {subject.letter: _videos(subject.data.path) for subject in subjects}
    if not any(found.values()):
        return None
    room_bytes, places = MOST_BYTES // len(subjects), MOST_VIDEOS // len(subjects)
    media: list[Media] = []
    summary: list[str] = []
    for subject in subjects:
        videos = found[subject.letter]
        chosen = _chosen(videos, places, room_bytes)
        for step in sorted(chosen):
            path = videos[step]
            media.append(
                Media(
                    id=subject.id(f"sample-{step}"),
                    title=f"{subject.prefix}after step {step:,}",
                    media_type=MEDIA_TYPES[path.suffix[1:]],  # type: ignore[arg-type]
                    content=path.read_bytes(),
                    description=f"Clips sampled after step {step}, side by side",
                )
            )
        if left := len(videos) - len(chosen):
            summary.append(
                f"{subject.prefix}{left} of {len(videos)} sample videos are not in this page, for its "
                f"size: they are in {SAMPLES}/ of the run directory."
            )
    head = "Clips sampled with the conditions of the first training clips, side by side, from the same noise."
    return Section(id="samples", title="Sample videos", summary=[head, *summary], media=media)


def _videos(run: Path) -> dict[int, Path]:
    """By step; what does not begin as its kind does is left out."""
    try:
        entries = sorted((run / SAMPLES).iterdir())
    except OSError:
        return {}
    found = {}
    for entry in entries:
        match = NAME.fullmatch(entry.name)
        if match is not None and entry.is_file() and _is_of_its_kind(entry, match[2]):
            found[int(match[1])] = entry
    return found


def _is_of_its_kind(path: Path, kind: str) -> bool:
    place, signature = SIGNATURES[kind]
    try:
        with path.open("rb") as stream:
            head = stream.read(16)
    except OSError:
        return False
    return head[place : place + len(signature)] == signature


def _chosen(videos: dict[int, Path], most: int, room_bytes: int) -> set[int]:
    """Steps: the last one first, then the first, then evenly between, while there is room."""
    steps = sorted(videos)
    if not steps:
        return set()
    wanted = [steps[-1], steps[0]]
    wanted += [steps[place * (len(steps) - 1) // max(1, most - 1)] for place in range(most)]
    wanted += steps
    chosen: set[int] = set()
    left = room_bytes
    for step in dict.fromkeys(wanted):
        size = videos[step].stat().st_size
        if len(chosen) < most and size <= left:
            chosen.add(step)
            left -= size
    return chosen
