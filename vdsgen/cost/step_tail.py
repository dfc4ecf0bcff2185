"""What a step does besides its micro-batches: reductions, gathers, the optimizer and its offload."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class StageTail(NamedTuple):
    """What one stage does in a step besides its micro-batches, in seconds."""

    reduce_seconds: float
    gather_seconds: float
    optimizer_seconds: float
    offload_seconds: float


class StepTail(NamedTuple):
    """What a step does besides its micro-batches; of the slowest stage, reductions of each."""

    reduce_seconds: tuple[float, ...]
    gather_seconds: float
    optimizer_seconds: float
    offload_seconds: float
    overhead_seconds: float

    @property
    def common_seconds(self) -> float:
        """After the last reduction."""
        return self.gather_seconds + self.optimizer_seconds + self.offload_seconds + self.overhead_seconds

    @classmethod
    def of(cls, tails: Sequence[StageTail], overhead_seconds: float) -> StepTail:
        """Of these stages, which wait for the slowest of them after each part."""
        return cls(
            reduce_seconds=tuple(tail.reduce_seconds for tail in tails),
            gather_seconds=max((tail.gather_seconds for tail in tails), default=0.0),
            optimizer_seconds=max((tail.optimizer_seconds for tail in tails), default=0.0),
            offload_seconds=max((tail.offload_seconds for tail in tails), default=0.0),
            overhead_seconds=overhead_seconds,
        )
