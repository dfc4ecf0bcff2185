"""Which sample comes when: pure functions of the seed and of the sample's global index.

Sample g of a run is the same whatever the layout: step s of a run takes the indices
[s * global_batch_size, (s + 1) * global_batch_size), and each data rank its own share of them.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Share:
    """One data rank's share of each global batch."""

    data_parallel_rank: int
    data_parallel_size: int
    micro_batch_size: int
    gradient_accumulation_steps: int

    def __post_init__(self) -> None:
        assert 0 <= self.data_parallel_rank < self.data_parallel_size, self
        assert self.micro_batch_size > 0 and self.gradient_accumulation_steps > 0, self

    @property
    def global_batch_size(self) -> int:
        return self.micro_batch_size * self.gradient_accumulation_steps * self.data_parallel_size

    def indices(self, start_step: int, stop_step: int | None = None) -> Iterator[int]:
        """Global sample indices of the steps [start_step, stop_step), micro-batch by micro-batch;
        without end where stop_step is None."""
        steps = itertools.count(start_step) if stop_step is None else iter(range(start_step, stop_step))
        across = self.micro_batch_size * self.data_parallel_size
        for step in steps:
            for micro in range(self.gradient_accumulation_steps):
                first = step * self.global_batch_size + micro * across
                first += self.data_parallel_rank * self.micro_batch_size
                yield from range(first, first + self.micro_batch_size)


def generator_for(seed: int, *purpose: str | int) -> torch.Generator:
    """A CPU generator whose numbers depend on the arguments alone; different ones for each purpose."""
    key = "/".join(str(part) for part in ("vdsgen", seed, *purpose))
    digest = hashlib.sha256(key.encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


@functools.lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, clips: int) -> torch.Tensor:
    """(clips,) int64: the order of the clips in one epoch."""
    return torch.randperm(clips, generator=generator_for(seed, "epoch", epoch))


def candidates(seed: int, index: int, clips: int) -> Iterator[int]:
    """Positions of the clips for sample `index`, best first: its own, then those that follow it in its
    epoch, for when it cannot be read. Each clip once."""
    epoch, place = divmod(index, clips)
    order = permutation(seed, epoch, clips)
    for step in range(clips):
        yield int(order[(place + step) % clips])
