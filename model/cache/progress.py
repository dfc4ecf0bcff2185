"""How far an encoding is, over all processes that take part, on whatever hosts."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

SECONDS_BETWEEN_NOTES = 1.0


class SharedProgress:
    """A small file a process, in the cache's folder; who wants to know adds them up."""

    def __init__(self, cache: Path, job: str) -> None:
        self.folder = cache / "progress" / job

    def note(self, worker: int, done: int) -> None:
        path = self.folder / str(worker)
        self.folder.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(".new")
        scratch.write_text(str(done))
        scratch.replace(path)

    def done(self) -> int:
        total = 0
        for path in self.folder.glob("*") if self.folder.is_dir() else ():
            try:
                total += int(path.read_text()) if path.suffix == "" else 0
            except (OSError, ValueError):
                continue
        return total

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class Notes:
    """Notes one process's progress, not more often than anybody looks."""

    def __init__(self, shared: SharedProgress, worker: int) -> None:
        self._shared, self._worker = shared, worker
        self._noted = 0.0

    def __call__(self, done: int) -> None:
        if time.monotonic() - self._noted >= SECONDS_BETWEEN_NOTES:
            self._noted = time.monotonic()
            self._shared.note(self._worker, done)


def time_left(elapsed_seconds: float, done: int, total: int) -> str:
    """`40 %, about 3 min left`."""
    if not done:
        return f"0 of {total}"
    seconds = elapsed_seconds * (total - done) / done
    words = f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
    return f"{done} of {total} ({done / total:.0%}), about {words} left"
