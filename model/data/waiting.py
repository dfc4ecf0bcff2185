"""What the training process waits for when it asks for clips: the disk, decoding, encoding, or being
handed them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from vdsgen.model.data.reading import read_so_far


@dataclass(frozen=True, slots=True)
class Spent:
    """What one sample took, in the process or thread that made it."""

    reading_seconds: float
    read_bytes: int
    decoding_seconds: float
    """From the file's bytes to pixels, or to the tensors that a cache holds."""
    encoding_seconds: float
    """From there to the training pair."""
    ready_at: float
    """On the clock that all processes of a machine share (perf_counter)."""

    @property
    def seconds(self) -> float:
        return self.reading_seconds + self.decoding_seconds + self.encoding_seconds


class Stopwatch:
    """Times the making of one sample: made when it begins, `decoded()` half-way, `spent()` at the end."""

    def __init__(self) -> None:
        self._began = self._decoded = time.perf_counter()
        self._read_seconds, self._read_bytes = read_so_far()
        self._read_until_decoded = 0.0

    def decoded(self) -> None:
        self._decoded = time.perf_counter()
        self._read_until_decoded = read_so_far()[0] - self._read_seconds

    def spent(self) -> Spent:
        now = time.perf_counter()
        seconds, size = read_so_far()
        reading = seconds - self._read_seconds
        return Spent(
            reading_seconds=reading,
            read_bytes=size - self._read_bytes,
            decoding_seconds=max(0.0, self._decoded - self._began - self._read_until_decoded),
            encoding_seconds=max(0.0, now - self._decoded - (reading - self._read_until_decoded)),
            ready_at=now,
        )


@dataclass(slots=True)
class Waiting:
    """Sums over samples so far. What was waited for, and what loaders did, waited for or not."""

    reading_seconds: float = 0.0
    decoding_seconds: float = 0.0
    encoding_seconds: float = 0.0
    hand_over_seconds: float = 0.0
    """The sample was ready, or is being put into a batch: between processes, and in the training process."""
    samples: int = 0
    read_bytes: int = 0
    loader_reading_seconds: float = 0.0
    loader_decoding_seconds: float = 0.0
    loader_encoding_seconds: float = 0.0

    @property
    def seconds(self) -> float:
        return float(sum(getattr(self, name) for name in WAITS))

    def count(self, spent: Spent, began: float, got: float) -> None:
        """A sample was asked for at `began` and there at `got`. Until it was ready, its making was waited
        for, all parts of it in proportion."""
        making = min(got - began, max(0.0, spent.ready_at - began))
        whole = spent.seconds
        if whole > 0:
            self.reading_seconds += making * spent.reading_seconds / whole
            self.decoding_seconds += making * spent.decoding_seconds / whole
            self.encoding_seconds += making * spent.encoding_seconds / whole
        self.hand_over_seconds += got - began - (making if whole > 0 else 0.0)
        self.samples += 1
        self.read_bytes += spent.read_bytes
        self.loader_reading_seconds += spent.reading_seconds
        self.loader_decoding_seconds += spent.decoding_seconds
        self.loader_encoding_seconds += spent.encoding_seconds

    def waits(self) -> dict[str, float]:
        return {name: getattr(self, name) for name in WAITS}

    def loader(self) -> dict[str, float]:
        """What loaders did, by the names that metrics have for it."""
        return {
            "samples": self.samples,
            "read_bytes": self.read_bytes,
            "reading_seconds": self.loader_reading_seconds,
            "decoding_seconds": self.loader_decoding_seconds,
            "encoding_seconds": self.loader_encoding_seconds,
        }

    def whole_numbers(self) -> list[int]:
        """For collectives: times in microseconds."""
        return [round(getattr(self, each.name) * _unit(each.name)) for each in fields(self)]

    @classmethod
    def of_whole_numbers(cls, numbers: Sequence[int]) -> Waiting:
        pairs = zip(fields(cls), numbers, strict=True)
        return cls(**{each.name: _whole_or_seconds(each.name, number) for each, number in pairs})

    @classmethod
    def total(cls, parts: Sequence[Waiting]) -> Waiting:
        return cls(*(sum(getattr(part, each.name) for part in parts) for each in fields(cls)))

    def copy(self) -> Waiting:
        return Waiting(*(getattr(self, each.name) for each in fields(self)))

    def since(self, before: Waiting) -> Waiting:
        """What came on top of an earlier copy."""
        return Waiting(*(getattr(self, each.name) - getattr(before, each.name) for each in fields(self)))


def _whole_or_seconds(name: str, number: int) -> Any:
    return number if _unit(name) == 1 else number / 1e6


def _unit(name: str) -> float:
    return 1e6 if name.endswith("_seconds") else 1


WAITS = ("reading_seconds", "decoding_seconds", "encoding_seconds", "hand_over_seconds")
"""The parts of `Waiting.seconds`."""
