"""Which sample comes when: pure functions of the seed and of the sample's global index.

Sample g of a run is the same whatever the layout: step s of a run takes the indices
[s * global_batch_size, (s + 1) * global_batch_size), and each data rank its own share of them.

Where clips come in several sizes, each step takes one for all of its samples, and every run of as many
steps as there are sizes takes each size once.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch


class Draw(NamedTuple):
    """One sample of a run."""

    sample: int
    """Its global index: what its window, crop, flip, noise and timestep are drawn by."""
    size: int
    """Of its clip: the place in `Data.sizes`."""
    turn: int
    """Its index among the samples of that size: which clip it shows. With one size, the global index."""

    @classmethod
    def of_one_size(cls, sample: int) -> Draw:
        return cls(sample, 0, sample)


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

    def draws(self, seed: int, sizes: int, start_step: int, stop_step: int | None = None) -> Iterator[Draw]:
        """What `indices` names, with sizes: those of a step are all of `size_of_step`."""
        for sample in self.indices(start_step, stop_step):
            step, place = divmod(sample, self.global_batch_size)
            turn = step // sizes * self.global_batch_size + place
            yield Draw(sample, size_of_step(seed, step, sizes), turn)


def size_of_step(seed: int, step: int, sizes: int) -> int:
    """The place in `Data.sizes` of the size that step `step` (counted from 0) takes."""
    chunk, place = divmod(step, sizes)
    return int(_sizes_in_turn(seed, chunk, sizes)[place])


@functools.lru_cache(maxsize=4)
def _sizes_in_turn(seed: int, chunk: int, sizes: int) -> torch.Tensor:
    """(sizes,) int64: the order of the sizes in one run of as many steps."""
    return torch.randperm(sizes, generator=generator_for(seed, "sizes", chunk))


def generator_for(seed: int, *purpose: str | int) -> torch.Generator:
    """A CPU generator whose numbers depend on the arguments alone; different ones for each purpose."""
    key = "/".join(str(part) for part in ("vdsgen", seed, *purpose))
    digest = hashlib.sha256(key.encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


@functools.lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, clips: int, size: int = 0) -> torch.Tensor:
    """(clips,) int64: the order of the clips in one epoch of a size (its place in `Data.sizes`)."""
    purpose = ("epoch", epoch, "size", size) if size else ("epoch", epoch)
    return torch.randperm(clips, generator=generator_for(seed, *purpose))


def candidates(seed: int, turn: int, clips: int, size: int = 0) -> Iterator[int]:
    """Positions of the clips for a size's sample `turn`, best first: its own, then those that follow it in
    its epoch, for when it cannot be read. Each clip once."""
    epoch, place = divmod(turn, clips)
    order = permutation(seed, epoch, clips, size)
    for step in range(clips):
        yield int(order[(place + step) % clips])
