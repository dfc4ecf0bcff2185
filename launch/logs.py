"""Reading logs while others write them."""

from __future__ import annotations

from pathlib import Path


class Tail:
    """The lines that a growing file has gained since the last look; the file may not exist yet."""

    def __init__(self, path: Path, *, from_end: bool = False) -> None:
        self.path = path
        self._position = path.stat().st_size if from_end and path.exists() else 0
        self._partial = b""

    def lines(self) -> list[str]:
        """Complete lines only; what is after the last newline waits for the next look."""
        try:
            with self.path.open("rb") as stream:
                if stream.seek(0, 2) < self._position:
                    # Replaced by a shorter one: a resumed run drops the lines past its checkpoint.
                    self._position, self._partial = 0, b""
                stream.seek(self._position)
                content = stream.read()
        except OSError:
            return []
        self._position += len(content)
        *lines, self._partial = (self._partial + content).split(b"\n")
        return [line.decode(errors="replace") for line in lines]


def last_lines(path: Path, count: int, *, most_bytes: int = 65536) -> list[str]:
    """The last lines of a file that are not blank, [] where it cannot be read."""
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(max(0, size - most_bytes))
            text = stream.read().decode(errors="replace")
    except OSError:
        return []
    return [line.rstrip() for line in text.splitlines() if line.strip()][-count:]


class RankLogs:
    """The log files that one launch's ranks write into a folder, as launcher/launch.py:239 names them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._before = set(folder.glob("*_rank*.log")) if folder.is_dir() else set()
        self._tails: dict[int, Tail] = {}

    def path(self, rank: int) -> Path | None:
        """None before the rank has started."""
        self._look()
        return self._tails[rank].path if rank in self._tails else None

    def new_lines(self) -> list[tuple[int, str]]:
        """What every rank has said since the last call, with its rank."""
        self._look()
        return [(rank, line) for rank, tail in sorted(self._tails.items()) for line in tail.lines()]

    def ranks(self) -> list[int]:
        self._look()
        return sorted(self._tails)

    def _look(self) -> None:
        for path in self._folder.glob("*_rank*.log"):
            number = path.stem.rpartition("_rank")[2]
            if path not in self._before and number.isdecimal():
                self._tails.setdefault(int(number), Tail(path))
