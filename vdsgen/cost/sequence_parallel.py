"""Seconds that ranks which share samples spend in exchanges between them.

A block's attention within frames is between two all-to-alls of the hidden state's share, forward and backward
(model/layers/sequence_parallel.py; arXiv 2403.10266, section 3). Before and after, the parts that go to one
rank are copied together, and what came from each is put in its place. Nothing overlaps with any of it.
"""

from __future__ import annotations

from vdsgen.cost.communication import Topology
from vdsgen.cost.compute import costs_of
from vdsgen.cost.settings import Settings
from vdsgen.cost.tensor_parallel import Exchange
from vdsgen.cost.unequal_nodes import UnequalTopology
from vdsgen.spec.architecture import Geometry
from vdsgen.spec.profile import ModelProfile

EXCHANGES = 2
"""All-to-alls of one block in one pass."""


def sequence_exchange(
    profile: ModelProfile,
    layer: str,
    settings: Settings,
    geometry: Geometry,
    topology: Topology | UnequalTopology,
    memory_bytes_per_second: float,
) -> Exchange:
    """Of one layer between the ranks that share a sample; nothing where they do not. `geometry` is one rank's
    part."""
    if settings.sequence_parallel_size == 1 or not profile.layer_types[layer].is_block:
        return Exchange(0.0, 0.0)
    costs = costs_of(profile, layer, settings.dtype)
    share_bytes = costs.output_bytes.at(settings.micro_batch_size, geometry)
    # One sample's frames lie in the order in which they are sent, and its patches in that in which they come.
    copies = 1 if settings.micro_batch_size == 1 else 2
    sent = topology.sequence_exchange_seconds(settings, share_bytes)
    one = EXCHANGES * (sent + copies * 2 * share_bytes / memory_bytes_per_second)
    return Exchange(one, one)
