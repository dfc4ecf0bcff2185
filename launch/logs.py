"""The logs that the ranks of a start write."""

from __future__ import annotations

from pathlib import Path

from vdsgen.runs.tail import Tail


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
