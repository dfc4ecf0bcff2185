"""The clips of a folder: which files can be used, in an order that depends on their names alone."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from vdsgen.errors import VdsgenError
from vdsgen.model.data.captions import read_caption
from vdsgen.model.data.video import SUFFIXES, VideoError, VideoInfo, printable, probe
from vdsgen.model.heartbeat import HEART
from vdsgen.spec.data import ClipSize, Data, size_key

log = logging.getLogger("vdsgen.data")

NAMED_AT_MOST = 20
"""Skipped files that are named one by one in the log; the rest are counted."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A usable video file."""

    path: str
    """Relative to the folder, with forward slashes."""
    info: VideoInfo
    last_start: int
    """The last source frame that a clip of the fewest frames may start at."""
    caption: str
    """From the sidecar file; empty where there is none."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that is left out, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Index:
    """What a folder holds."""

    folder: str
    entries: tuple[Entry, ...]
    skipped: tuple[Skipped, ...] = ()
    warnings: tuple[Skipped, ...] = ()
    """Files that are used, with something wrong about them (an unreadable caption)."""

    def file(self, position: int) -> Path:
        return Path(self.folder) / self.entries[position].path

    def long_enough(self, data: Data, size: ClipSize) -> Sequence[int]:
        """Positions of the clips that have `size.frames` frames, in order."""
        if size.frames == shortest(data):
            return range(len(self.entries))
        return tuple(
            position
            for position, entry in enumerate(self.entries)
            if last_start(entry.info, size.frames, data.frame_rate) >= 0
        )

    @property
    def fingerprint(self) -> str:
        """Changes with everything that a sample depends on, except the pixels: resuming a run with
        another fingerprint means other clips in another order."""
        digest = hashlib.sha256()
        for entry in self.entries:
            info = entry.info
            facts = (entry.caption, info.frames, info.frame_rate, info.width, info.height, entry.last_start)
            digest.update(os.fsencode(entry.path) + b"\0" + repr(facts).encode("utf-8", "surrogateescape"))
            digest.update(b"\n")
        return digest.hexdigest()


def scan(data: Data, *, threads: int | None = None) -> Index:
    """Searches `data.videos` and probes every video file in it.

    Follows symbolic links, each folder once; leaves hidden files and folders out. Broken and too short
    files are in `Index.skipped`.

    Raises VdsgenError where the folder cannot be read or holds no usable clip of one of `data.sizes`,
    saying what was found.
    """
    folder = Path(data.videos)
    if not folder.is_dir():
        state = "is not a folder" if folder.exists() else "does not exist"
        raise VdsgenError(
            f"data.videos: {printable(folder)} {state}",
            remedy="name a folder with video files; a relative path starts where the command is run "
            f"({printable(Path.cwd())})",
        )
    unreadable: list[Skipped] = []
    files = sorted(_walk(folder, unreadable))
    videos = [name for name in files if os.path.splitext(name)[1].lower() in SUFFIXES]  # noqa: PTH122
    workers = threads or min(32, 4 * (os.cpu_count() or 1))
    with ThreadPoolExecutor(workers, thread_name_prefix="probe") as pool:
        findings = list(pool.map(lambda name: _look_at(folder, name, data), videos))
    index = Index(
        folder=str(folder),
        entries=tuple(finding.entry for finding in findings if finding.entry),
        skipped=(*unreadable, *(f.problem for f in findings if f.problem and not f.entry)),
        warnings=tuple(f.problem for f in findings if f.problem and f.entry),
    )
    if not index.entries:
        raise _nothing_usable(folder, len(files), len(videos), index.skipped)
    for place, size in enumerate(data.sizes if data.bucketing == "every" else ()):
        if not index.long_enough(data, size):
            raise _none_long_enough(index, size, size_key(place))
    return index


def shortest(data: Data) -> int:
    """Frames that a clip needs to be of use."""
    return min(size.frames for size in data.sizes)


def last_start(info: VideoInfo, frames: int, frame_rate: float | None) -> int:
    """The last source frame that a clip of `frames` may start at; negative: the video is too short.

    The clip's last picture is the source frame nearest to start + (frames - 1) / frame_rate.
    """
    if frame_rate is None:
        return info.frames - frames
    steps = (frames - 1) * info.frame_rate / Fraction(frame_rate).limit_denominator(10_000)
    return math.ceil(info.frames - Fraction(1, 2) - steps) - 1


def report(index: Index, data: Data) -> None:
    """Writes to the log what was found, names what was skipped, and warns of small videos."""
    total = len(index.entries) + len(index.skipped)
    log.info("%d of %d clips in %s can be used", len(index.entries), total, printable(index.folder))
    for kind, cases in (("skipped", index.skipped), ("used in spite of it:", index.warnings)):
        for case in cases[:NAMED_AT_MOST]:
            log.warning("%s %s: %s", kind, printable(case.path), case.reason)
        if len(cases) > NAMED_AT_MOST:
            log.warning("%s %d more", kind, len(cases) - NAMED_AT_MOST)
    for size in data.sizes:
        positions = index.long_enough(data, size)
        if len(data.sizes) > 1:
            log.info("%d of them are long enough for %s", len(positions), size)
        infos = [index.entries[position].info for position in positions]
        small = sum(info.height < size.height or info.width < size.width for info in infos)
        if small:
            log.warning(
                "%d of %d clips are smaller than %d x %d (height x width) and are enlarged",
                small, len(infos), size.height, size.width,
            )  # fmt: skip


def _walk(folder: Path, unreadable: list[Skipped]) -> Iterator[str]:
    """Relative posix paths of everything that is not a folder. Each real folder is entered once, so
    that loops of symbolic links end."""
    entered: set[tuple[int, int]] = set()
    waiting = [""]
    while waiting:
        relative = waiting.pop()
        try:
            status = (folder / relative).stat()
            if (status.st_dev, status.st_ino) in entered:
                continue
            entered.add((status.st_dev, status.st_ino))
            with os.scandir(folder / relative) as found:
                items = sorted((item for item in found if not item.name.startswith(".")), key=_name)
        except OSError as error:
            if not relative:
                raise VdsgenError(f"data.videos: {printable(folder)}: {error.strerror}") from error
            unreadable.append(Skipped(relative, f"cannot be read ({error.strerror})"))
            continue
        folders = []
        for item in items:
            path = f"{relative}/{item.name}" if relative else item.name
            if item.is_dir():
                folders.append(path)
            else:
                yield path
        waiting.extend(reversed(folders))


def _name(item: os.DirEntry[str]) -> str:
    return item.name


@dataclass(frozen=True, slots=True)
class _Finding:
    """What one file turned out to be: usable, or skipped, or usable with a problem."""

    entry: Entry | None
    problem: Skipped | None = None


def _look_at(folder: Path, name: str, data: Data) -> _Finding:
    HEART.come_on()
    try:
        if not stat.S_ISREG((folder / name).stat().st_mode):  # a named pipe would block for ever
            return _Finding(None, Skipped(name, "is not a regular file"))
        info = probe(folder / name)
    except VideoError as error:
        return _Finding(None, Skipped(name, error.reason))
    except OSError as error:
        return _Finding(None, Skipped(name, f"cannot be read ({error.strerror})"))
    start = last_start(info, shortest(data), data.frame_rate)
    if start < 0:
        return _Finding(None, Skipped(name, _too_short(info, data)))
    caption = read_caption(folder / name)
    problem = Skipped(name, caption.problem) if caption.problem else None
    return _Finding(Entry(name, info, start, caption.text), problem)


def _too_short(info: VideoInfo, data: Data) -> str:
    have, frames = f"has {info.frames} frames at {float(info.frame_rate):.4g} a second", shortest(data)
    if data.frame_rate is None:
        return f"{have}, {frames} are needed"
    seconds = (frames - 1) / data.frame_rate
    return f"{have}, {frames} at {data.frame_rate:g} a second take {seconds:.2f} s"


def _none_long_enough(index: Index, size: ClipSize, at: str) -> VdsgenError:
    return VdsgenError(
        f"data.{at or 'frames'}: none of the {len(index.entries)} clips in {printable(index.folder)} is long "
        f"enough for {size.frames} frames",
        remedy="leave this size out, give it fewer frames, or raise data.frame_rate if it is set",
    )


def _nothing_usable(folder: Path, files: int, videos: int, skipped: tuple[Skipped, ...]) -> VdsgenError:
    suffixes = ", ".join(sorted(SUFFIXES))
    if not skipped:
        what = f"{files} files, none of them {suffixes}" if files else "no file"
        return VdsgenError(
            f"data.videos: {printable(folder)} holds {what}",
            remedy="name the folder with the clips (sub-folders are searched too, hidden files are not)",
        )
    reasons = Counter(case.reason for case in skipped)
    first = "\n".join(f"    {printable(case.path)}: {case.reason}" for case in skipped[:5])
    more = "" if len(skipped) <= 5 else f"\n    and {len(skipped) - 5} more"
    return VdsgenError(
        f"data.videos: none of the {videos} videos in {printable(folder)} can be used:\n{first}{more}",
        remedy="lower data.frames, or raise data.frame_rate if it is set"
        if any(" needed" in reason or " take " in reason for reason in reasons)
        else "check that the files were copied completely",
    )
