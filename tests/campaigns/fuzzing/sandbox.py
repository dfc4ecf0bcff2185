"""A world of its own for one worker: a home, a place for temporary files, and neighbours that must stay as
they are. Whatever the process opens for writing or starts is noted, wherever it lies."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.campaigns.fuzzing.case import Case, write_below

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGING = frozenset(
    {
        "os.mkdir",
        "os.rename",
        "os.remove",
        "os.rmdir",
        "os.link",
        "os.symlink",
        "os.truncate",
        "os.chmod",
        "shutil.rmtree",
    }
)
STARTING = frozenset({"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "pty.spawn"})

Listing = dict[str, tuple[int, int, int, int]]


class Sandbox:
    """`work` is where cases lie and commands run; only `work/out`, and files that a command is told to change,
    may change."""

    def __init__(self, root: Path, cache: Path) -> None:
        """`cache` is the user's, for profiles of traced models: it may be shared."""
        self.root, self.cache = root, cache
        self.work = root / "work"
        self.events: list[str] = []
        """What was written outside, and what was started, since the case began."""
        self._watching = False
        self._allowed: tuple[str, ...] = ()
        for name in ("home", "tmp", "work"):
            (root / name).mkdir()
        (root / "outside.txt").write_text("nobody touches this\n")
        (root / "home" / ".bashrc").write_text("")
        os.environ |= {
            "HOME": str(root / "home"), "TMPDIR": str(root / "tmp"), "XDG_CACHE_HOME": str(cache),
            "COLUMNS": "100", "DS_ACCELERATOR": "cpu", "TORCHINDUCTOR_CACHE_DIR": str(cache / "torch"),
        }  # fmt: skip
        for name in ("CUDA_VISIBLE_DEVICES", "MASTER_PORT", "SLURM_JOB_ID"):
            os.environ.pop(name, None)
        tempfile.tempdir = str(root / "tmp")
        sys.addaudithook(self._hear)

    def begin(self, case: Case, may_change: tuple[str, ...]) -> None:
        os.chdir(self.root)
        shutil.rmtree(self.work)
        self.work.mkdir()
        write_below(self.work, case)
        os.chdir(self.work)
        self.events.clear()
        self._allowed = tuple(str(self.work / name) for name in may_change)

    def watch(self, on: bool) -> None:
        self._watching = on

    def listing(self, *, below: str = "") -> Listing:
        """Every file: kind, size, time of change and number. The places that may change are left out, unless
        `below` names one."""
        found: Listing = {}
        waiting = [self.root if not below else self.work / below]
        while waiting:
            folder = waiting.pop()
            if not folder.is_dir():
                continue
            with os.scandir(folder) as entries:
                for entry in entries:
                    if not below and entry.path in self._allowed:
                        continue
                    status = entry.stat(follow_symlinks=False)
                    is_folder = entry.is_dir(follow_symlinks=False)
                    found[entry.path] = (status.st_mode, 0, 0, 0) if is_folder else (
                        status.st_mode, status.st_size, status.st_mtime_ns, status.st_ino)  # fmt: skip
                    if is_folder:
                        waiting.append(Path(entry.path))
        return found

    def content(self, below: str) -> dict[str, bytes]:
        folder = self.work / below
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._watching:
            return
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & WRITING and isinstance(path, str | bytes):
                self._note(event, os.fsdecode(path))
        elif event in CHANGING and isinstance(arguments[0], str | bytes | os.PathLike):
            self._note(event, os.fsdecode(arguments[0]))
        elif event in STARTING:
            words = arguments[1] if event == "subprocess.Popen" else arguments
            if event != "subprocess.Popen" or isinstance(words, str | bytes):
                self.events.append(f"{event} of a string: {words!r}"[:300])
            elif Path(str(words[0])).name != "bash" or list(words[1:]) != ["-n"]:
                self.events.append(f"{event}: {words!r}"[:300])

    def _note(self, event: str, path: str) -> None:
        whole = os.path.abspath(path)  # noqa: PTH100 - links are not followed
        folder, name = os.path.split(whole)
        # A file is written beside its place first: `.x.json.1a2b3c4d` becomes `x.json`.
        if name.startswith("."):
            whole = f"{folder}/{name[1:]}"
        if whole == os.devnull or whole.startswith((*self._allowed, f"{self.cache}/")):
            return
        if event == "os.mkdir" and Path(path).is_dir():
            return
        self.events.append(f"{event} {path!r}"[:300])
