"""Seconds that ranks which share blocks spend in collectives between them.

A block's products are split so that each pair of them ends in one all-reduce of the hidden state, forward and
backward (arXiv 1909.08053, section 3); the profile has each collective of the real layers. Nothing overlaps
with them: every one of them waits for the product before, and the next waits for it.
"""

from __future__ import annotations

from typing import NamedTuple

from vdsgen.cost.communication import Topology
from vdsgen.cost.settings import Settings
from vdsgen.cost.unequal_nodes import UnequalTopology
from vdsgen.spec.architecture import Geometry
from vdsgen.spec.profile import LayerType


class Exchange(NamedTuple):
    """One micro-batch through one layer, between the ranks that share it or its samples."""

    forward_seconds: float
    backward_seconds: float
    """Without recomputation, which repeats the forward's."""

    def slowed(self, factor: float) -> Exchange:
        """The same in `factor` times the time."""
        return Exchange(factor * self.forward_seconds, factor * self.backward_seconds)

    def plus(self, other: Exchange) -> Exchange:
        return Exchange(
            self.forward_seconds + other.forward_seconds, self.backward_seconds + other.backward_seconds
        )

    def seconds(self, *, recompute: bool) -> float:
        return self.forward_seconds * (2 if recompute else 1) + self.backward_seconds


def exchange(
    layer: LayerType, settings: Settings, geometry: Geometry, topology: Topology | UnequalTopology
) -> Exchange:
    """Of one layer between the ranks that share it; nothing where they do not."""
    spent = {"forward": 0.0, "backward": 0.0}
    for collective in layer.collectives or ():
        elements = collective.elements.at(settings.micro_batch_size, geometry)
        path = topology.tensor_group(settings, collective.kind)
        spent[collective.phase] += collective.count * path.ring_seconds(
            settings.tensor_parallel_size,
            elements * settings.element_bytes,
            passes=2 if collective.kind == "all_reduce" else 1,
        )
    return Exchange(spent["forward"], spent["backward"])
