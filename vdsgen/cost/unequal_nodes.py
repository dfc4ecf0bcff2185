"""The links of a pool whose nodes differ: in their GPUs, in how many of those are free, in their network.

As communication.py has it for nodes that are alike: collectives are rings, and links are shared by the rings
and flows that cross them at the same time. A ring is as slow as the slowest link on its way; what goes from
one node to another takes the links of both. Of a node's GPUs those that are used count as neighbours behind
its PCIe switches, whatever their device numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from vdsgen.cost.communication import Collective, Path, Topology
from vdsgen.cost.settings import Settings
from vdsgen.spec.lab import Pool


class _Node(NamedTuple):
    number: int
    first_rank: int
    links: Topology
    """Of a pool of such nodes alone."""


Share = tuple[int, int]
"""A node, and a PCIe switch in it; switch -1 stands for the node's network."""


class UnequalTopology:
    """Answers as Topology does, for a pool with groups."""

    def __init__(self, pool: Pool) -> None:
        assert pool.groups is not None
        self._nodes: list[_Node] = []
        """Of each rank."""
        number = 0
        for group in pool.groups:
            alike = pool.model_copy(
                update={
                    "groups": None,
                    "nodes": group.nodes,
                    **{
                        key: getattr(group, key)
                        for key in (
                            "gpus_per_node", "intra_node", "inter_node", "network_cards", "host_link",
                            "gpus_per_host_link", "calibration",
                        )
                    },
                }
            )  # fmt: skip
            links = Topology.of(alike)
            for _ in range(group.nodes):
                node = _Node(number, len(self._nodes), links)
                self._nodes += [node] * links.gpus_per_node
                number += 1
        self._rings_of: dict[tuple[int, int, int], Counter[Share]] = {}
        self._known: dict[tuple[object, ...], Path] = {}

    def node_of(self, rank: int) -> int:
        return self._nodes[rank].number

    def data_group(self, settings: Settings, stage: int, collective: Collective = "all_reduce") -> Path:
        """The path of the slowest of one stage's data-parallel rings; see Topology.data_group."""
        key = (*_sizes(settings), stage, collective)
        if key not in self._known:
            shares = self._rings_sharing(settings)
            paths = [self._ring(ring, shares, collective) for ring in _rings(settings, stage)]
            self._known[key] = slowest(paths)
        return self._known[key]

    def tensor_group(self, settings: Settings, collective: Collective = "all_reduce") -> Path:
        """The path of the slowest ring of ranks that share blocks: neighbours on one node."""
        size = settings.tensor_parallel_size
        key = (*_sizes(settings), size, collective, "tensor")
        if key not in self._known:
            nothing: Counter[Share] = Counter()
            rings = [range(first, first + size) for first in range(0, settings.world_size, size)]
            self._known[key] = slowest([self._ring(ring, nothing, collective) for ring in rings])
        return self._known[key]

    def sequence_exchange_seconds(self, settings: Settings, volume_bytes: float) -> float:
        """On the node that is slowest at it; see Topology.sequence_exchange_seconds."""
        used = self._nodes[: settings.world_size]
        each = {node.number: node.links for node in used}
        return max(links.sequence_exchange_seconds(settings, volume_bytes) for links in each.values())

    def stage_boundary(self, settings: Settings, stage: int) -> Path:
        """The path of the slowest flow from `stage` to the next; see Topology.stage_boundary."""
        key = (*_sizes(settings), stage, "boundary")
        if key not in self._known:
            size = settings.world_size // settings.pipeline_parallel_size
            first = stage * size
            flows = [(rank, rank + size) for rank in range(first, first + size)]
            out: Counter[Share] = Counter()
            into: Counter[Share] = Counter()
            for one, other in flows:
                outer = self._nodes[one].number != self._nodes[other].number
                if outer or self._switch(one) != self._switch(other):
                    out[self._share(one, outer=outer)] += 1
                    into[self._share(other, outer=outer)] += 1
            self._known[key] = slowest([self._flow(flow, out, into) for flow in flows])
        return self._known[key]

    def _ring(self, ring: range, shares: Counter[Share], collective: Collective) -> Path:
        nodes = {node.number: node for node in map(self._nodes.__getitem__, ring)}
        if len(nodes) == 1:
            (node,) = nodes.values()
            if collective in node.links.collectives:
                return node.links.collectives[collective]
            crowd = max(shares[self._share(rank, outer=False)] for rank in ring)
            return node.links.inside(max(1, crowd))
        outer = [
            node.links.outside(shares[number, -1] / node.links.network_cards)
            for number, node in nodes.items()
        ]
        return slowest([*outer, *(node.links.inside(1) for node in nodes.values())])

    def _flow(self, flow: tuple[int, int], out: Counter[Share], into: Counter[Share]) -> Path:
        ends = [(self._nodes[rank], rank, count) for rank, count in zip(flow, (out, into), strict=True)]
        if ends[0][0].number != ends[1][0].number:
            return slowest(
                [
                    node.links.outside(max(1.0, count[node.number, -1] / node.links.network_cards))
                    for node, _, count in ends
                ]
            )
        return slowest(
            [node.links.inside(max(1, count[self._share(rank, outer=False)])) for node, rank, count in ends]
        )

    def _rings_sharing(self, settings: Settings) -> Counter[Share]:
        """Rings across each node's network, and out of each switch, at the same time."""
        key = _sizes(settings)
        if key not in self._rings_of:
            crossings: Counter[Share] = Counter()
            for stage in range(settings.pipeline_parallel_size):
                for ring in _rings(settings, stage):
                    crossings.update(self._crossed(ring))
            self._rings_of[key] = crossings
        return self._rings_of[key]

    def _crossed(self, ring: range) -> set[Share]:
        nodes = {self._nodes[rank].number for rank in ring}
        switches = {self._share(rank, outer=False) for rank in ring}
        crossed = {(number, -1) for number in nodes} if len(nodes) > 1 else set()
        return crossed | (switches if len(switches) > 1 else set())

    def _switch(self, rank: int) -> int:
        node = self._nodes[rank]
        return (rank - node.first_rank) // node.links.gpus_per_switch

    def _share(self, rank: int, *, outer: bool) -> Share:
        """What a rank's traffic goes through: its node's network, or its switch's uplink (its own link)."""
        node = self._nodes[rank]
        if outer:
            return node.number, -1
        return node.number, self._switch(rank)


def topology_of(pool: Pool) -> Topology | UnequalTopology:
    """The links of a pool whose names are resolved."""
    return Topology.of(pool) if pool.groups is None else UnequalTopology(pool)


def slowest(paths: list[Path]) -> Path:
    """One way over all of them: the least bandwidth, the longest latency."""
    return Path(min(path.bytes_per_second for path in paths), max(path.latency_seconds for path in paths))


def _rings(settings: Settings, stage: int) -> Iterator[range]:
    """The ranks of each data-parallel group of a stage; ranks that share a layer are neighbours."""
    size = settings.world_size // settings.pipeline_parallel_size
    shared = size // settings.sequence_data_parallel_size
    for at in range(shared):
        yield range(stage * size + at, (stage + 1) * size, shared)


def _sizes(settings: Settings) -> tuple[int, int, int]:
    return settings.world_size, settings.pipeline_parallel_size, settings.sequence_data_parallel_size
