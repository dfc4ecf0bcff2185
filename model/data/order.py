"""Which sample comes when: pure functions of the seed and of the sample's global index.

Sample g of a run is the same whatever the layout: step s of a run takes the indices
[s * global_batch_size, (s + 1) * global_batch_size), and each data rank its own share of them.

Where clips come in several sizes, each step or each micro-batch takes one for all of its samples, in rounds:
every round takes each size as often as its share says, in an order of its own.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
from collections.abc import Iterator, Sequence
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
    size_units_a_step: int | None = None
    """Where sizes take turns within a step: how many; None: with each micro-batch."""

    def __post_init__(self) -> None:
        assert 0 <= self.data_parallel_rank < self.data_parallel_size, self
        assert self.micro_batch_size > 0 and self.gradient_accumulation_steps > 0, self
        assert self.gradient_accumulation_steps % self.units == 0, self

    @property
    def units(self) -> int:
        return self.size_units_a_step or self.gradient_accumulation_steps

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

    def draws(self, order: SizeOrder, start_step: int, stop_step: int | None = None) -> Iterator[Draw]:
        """What `indices` names, with sizes: those of a step, or of a micro-batch of all ranks or several of
        them, are the same."""
        units = order.units_a_step
        assert self.gradient_accumulation_steps % units == 0, (order, self)
        each = self.global_batch_size // units
        for sample in self.indices(start_step, stop_step):
            unit, place = divmod(sample, each)
            yield Draw(sample, order.size_of(unit), order.before(unit) * each + place)


LONGEST_ROUND = 1000
"""Units. Shares that take more to be exact are rounded, to one at least."""


@dataclass(frozen=True, slots=True)
class SizeOrder:
    """Which size each unit of a run takes. A unit is a step, or one of a step's micro-batches on all
    ranks in the layout that the run was begun in; later ones may take several for it."""

    seed: int
    shares: tuple[int, ...]
    """Of each size: units in a round. 0: never."""
    units_a_step: int = 1

    @classmethod
    def by_clips(cls, seed: int, clips: Sequence[int], units_a_step: int = 1) -> SizeOrder:
        """Each size as often as it has clips: every clip then is trained on equally often."""
        return cls(seed, round_shares(clips), units_a_step)

    def size_of(self, unit: int) -> int:
        """The place in `Data.sizes` of what unit `unit` (counted from 0) takes."""
        number, place = divmod(unit, sum(self.shares))
        return int(_round(self.seed, number, self.shares)[0][place])

    def before(self, unit: int) -> int:
        """Units before this one that took the same size."""
        number, place = divmod(unit, sum(self.shares))
        sizes, earlier = _round(self.seed, number, self.shares)
        return number * self.shares[int(sizes[place])] + int(earlier[place])

    def of_step(self, step: int, micro_batches: int | None = None) -> tuple[int, ...]:
        """The sizes of step `step` (counted from 0), one a unit; of units of several micro-batches each one
        a micro-batch, where a step has `micro_batches`."""
        first = step * self.units_a_step
        repeats = 1 if micro_batches is None or self.units_a_step == 1 else micro_batches // self.units_a_step
        sizes = (self.size_of(unit) for unit in range(first, first + self.units_a_step))
        return tuple(size for size in sizes for _ in range(repeats))


def round_shares(clips: Sequence[int]) -> tuple[int, ...]:
    """The shortest round that takes each size in proportion to its clips, of LONGEST_ROUND units or so at
    most; a size with any clip has a unit in each."""
    total = sum(clips)
    assert total > 0, "sizes without a clip"
    divisor = max(math.gcd(*clips), total / LONGEST_ROUND)
    return tuple(max(1, round(count / divisor)) if count else 0 for count in clips)


@functools.lru_cache(maxsize=4)
def _round(seed: int, number: int, shares: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """(units,) int64 each: the sizes of one round in their order, and how often each came before in it."""
    sizes = torch.arange(len(shares)).repeat_interleave(torch.tensor(shares))
    sizes = sizes[torch.randperm(len(sizes), generator=generator_for(seed, "sizes", number))]
    earlier = torch.empty_like(sizes)
    for size, share in enumerate(shares):
        earlier[sizes == size] = torch.arange(share)
    return sizes, earlier


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
