"""A disk that is slow, injected where loaders read: in whatever process or thread that is."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

from vdsgen.model.data import reading
from vdsgen.model.data.loader import Prepares, Source
from vdsgen.model.data.order import Draw
from vdsgen.model.data.samples import Prepared


@dataclasses.dataclass(frozen=True)
class OnSlowDisk:
    """A preparation whose reads take at least as long as a disk of this rate would."""

    preparation: Prepares
    bytes_per_second: float

    def prepare(self, draw: Draw) -> Prepared:
        reading.delay_reads(self.delay)
        return self.preparation.prepare(draw)

    def delay(self, size: int) -> None:
        time.sleep(size / self.bytes_per_second)


class SlowSource:
    """A source whose loaders read from a slow disk."""

    def __init__(self, source: Source, bytes_per_second: float) -> None:
        self._source = source
        self.preparation = OnSlowDisk(source.preparation, bytes_per_second)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)
