"""Tensor-parallel ranks of which one is there: its collectives are noted, and nothing is sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from vdsgen.model.layers.tensor_parallel import TensorRanks
from vdsgen.profile.fit import Basis
from vdsgen.spec.profile import Collective


class Sent(NamedTuple):
    """One collective."""

    kind: Literal["all_reduce", "all_gather"]
    phase: Literal["forward", "backward"]
    elements: int
    """Of the whole result."""


class SilentRanks(TensorRanks):
    """The first of `size` ranks. Collectives take the memory that they take among real ranks."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.sent: list[Sent] = []

    def add_up(self, x: Tensor) -> Tensor:
        self.sent.append(Sent("all_reduce", _phase(), x.numel()))
        return x

    def gather(self, share: Tensor) -> Tensor:
        shares = share.new_empty(self.size, *share.shape)
        self.sent.append(Sent("all_gather", _phase(), shares.numel()))
        return self.joined(shares)


def _phase() -> Literal["forward", "backward"]:
    return "forward" if torch._C._current_graph_task_id() == -1 else "backward"


def fitted_collectives(basis: Basis, traces: Sequence[Sequence[Sent]]) -> tuple[Collective, ...]:
    """As functions of the geometry, one sequence of collectives for each point of the basis."""
    counts: dict[str, Collective] = {}
    for alike in zip(*traces, strict=True):
        found = Collective(
            kind=alike[0].kind,
            phase=alike[0].phase,
            elements=basis.polynomial([one.elements for one in alike]),
        )
        key = found.model_dump_json()
        before = counts[key].count if key in counts else 0
        counts[key] = found.model_copy(update={"count": before + 1})
    return tuple(counts.values())
