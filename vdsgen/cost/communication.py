"""What moves between GPUs in one optimizer step, and how long it takes on a pool's links.

Ranks are laid out as DeepSpeed's PipeModelDataParallelTopology does (pipe/topology.py:243): row-major over
the axes (pipe, data, model), so ranks that share blocks are neighbours, those of a data-parallel group are
tensor_parallel_size apart (those of them that share samples come first), and the next stage's peer is as many
ranks away as a stage has. Without tensor parallelism that is PipeDataParallelTopology (:232). Rank r sits on
node r // gpus_per_node.

Collectives are bandwidth-optimal rings (Patarasso and Yuan 2009, doi 10.1016/j.jpdc.2008.09.002):
an all-reduce moves 2 (n - 1) / n of the data over each link, a gather or a scatter half of that.
Links are shared where rings or flows cross the same one: the network cards of a node, and the uplink of a
PCIe switch with several GPUs behind it (`gpus_per_host_link`). Ignored: trees and other algorithms that NCCL
may pick for small messages, and a root complex slower than the links that it joins.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

from vdsgen.cost.engine_optimizer import engine_optimizer
from vdsgen.cost.settings import Settings
from vdsgen.cost.wire import gradient_bytes, parameter_bytes
from vdsgen.spec.calibration import Calibration, middle
from vdsgen.spec.compression import PIECE_ELEMENTS
from vdsgen.spec.lab import Link, Pool

MICROSECONDS = 1e-6
GB = 1e9


class Path(NamedTuple):
    """The narrowest link that a group or a pair communicates over, as one ring or one flow sees it."""

    bytes_per_second: float
    latency_seconds: float

    def ring_seconds(self, ranks: int, volume_bytes: float, *, passes: int, messages: int = 1) -> float:
        """A ring collective over `ranks`: passes=2 for an all-reduce, 1 for a gather or a scatter."""
        if ranks == 1 or volume_bytes == 0:
            return 0.0
        steps = passes * (ranks - 1)
        return steps / ranks * volume_bytes / self.bytes_per_second + messages * steps * self.latency_seconds

    def slower_start(self, other: Path) -> Path:
        """This path's bandwidth with the longer latency of the two."""
        return self._replace(latency_seconds=max(self.latency_seconds, other.latency_seconds))

    def send_seconds(self, volume_bytes: float, messages: int = 1) -> float:
        """One point-to-point transfer of `messages` tensors."""
        return volume_bytes / self.bytes_per_second + messages * self.latency_seconds


Collective = Literal["all_reduce", "all_gather", "reduce_scatter"]


class Topology(NamedTuple):
    """A pool's links, as the ranks of one layout see them."""

    nodes: int
    gpus_per_node: int
    intra_node: Link
    inter_node: Link | None
    network_cards: int = 1
    gpus_per_switch: int = 1
    """GPUs whose traffic inside the node leaves their PCIe switch over one link; 1: no link is shared."""
    collectives: Mapping[str, Path] = MappingProxyType({})
    """Measured rings inside a node, by collective."""

    @classmethod
    def of(cls, pool: Pool) -> Topology:
        """The links of a pool whose names are resolved; measured link figures replace the inner link's."""
        assert isinstance(pool.intra_node, Link), "links are resolved before costs are asked for"
        assert not isinstance(pool.inter_node, str), "links are resolved before costs are asked for"
        assert not isinstance(pool.host_link, str), "links are resolved before costs are asked for"
        calibration = pool.calibration
        assert not isinstance(calibration, str), "the lab file's reader puts figures in a path's place"
        intra = pool.intra_node if calibration is None else _measured_link(pool.intra_node, calibration)
        # Traffic between GPUs goes through their switch where it goes over PCIe, not over NVLink.
        over_pcie = (
            pool.host_link is None
            or pool.intra_node.bandwidth_gb_per_second <= pool.host_link.bandwidth_gb_per_second
        )
        return cls(
            pool.nodes,
            pool.gpus_per_node,
            intra,
            pool.inter_node,
            pool.network_cards,
            pool.gpus_per_host_link if over_pcie else 1,
            _measured_collectives(calibration) if calibration is not None else {},
        )

    def node_of(self, rank: int) -> int:
        return rank // self.gpus_per_node

    def data_group(self, settings: Settings, stage: int, collective: Collective = "all_reduce") -> Path:
        """The path of one stage's data-parallel ring.

        A ring enters and leaves each node once, so it has the network cards to itself (NCCL lays a ring
        over each), unless rings of other stages cross the same node: those run at the same time and share
        them. Inside a node the same holds for the uplinks of PCIe switches.
        """
        size = settings.stage_ranks
        if len(_spanned(stage * size, size, self.gpus_per_node)) > 1:
            rings = self._rings_sharing(settings, stage, self.gpus_per_node)
            outer = _path(self._between_nodes(), rings / self.network_cards)
            inner = _path(self.intra_node, 1)
            return outer if outer.bytes_per_second < inner.bytes_per_second else inner.slower_start(outer)
        if collective in self.collectives:
            return self.collectives[collective]
        return _path(self.intra_node, self._rings_sharing(settings, stage, self.gpus_per_switch))

    def tensor_group(self, settings: Settings, collective: Collective = "all_reduce") -> Path:
        """The path of the ring of ranks that share blocks: neighbours on one node."""
        size = settings.tensor_parallel_size
        on_one_node = settings.world_size <= self.gpus_per_node or self.gpus_per_node % size == 0
        assert on_one_node, "tensor ranks are on one node"
        return self.collectives.get(collective, _path(self.intra_node, 1))

    def sequence_exchange_seconds(self, settings: Settings, volume_bytes: float) -> float:
        """An all-to-all of `volume_bytes` a rank between the ranks that share samples: every tensor-parallel
        place has a group, all of them neighbours on one node, and all exchange at the same time."""
        ranks, tensor = settings.sequence_parallel_size, settings.tensor_parallel_size
        if ranks == 1:
            return 0.0
        inner = _path(self.intra_node, 1)
        slowest = (ranks - 1) / ranks * volume_bytes / inner.bytes_per_second
        behind = self.gpus_per_switch
        if 1 < behind < ranks * tensor:
            outside = ranks - max(1, behind // tensor)
            leaving = behind * outside / ranks * volume_bytes
            slowest = max(slowest, leaving / inner.bytes_per_second)
        return slowest + (ranks - 1) * inner.latency_seconds

    def stage_boundary(self, settings: Settings, stage: int) -> Path:
        """The path from `stage` to the next: every rank sends at the same time, each the whole hidden state
        (render/engine_config.py, pipeline_section).

        A flow has one network card, and shares it where there are more flows than cards.
        """
        flows = self._flows_leaving(settings, stage, self.gpus_per_node)
        if flows:
            return _path(self._between_nodes(), max(1.0, flows / self.network_cards))
        return _path(self.intra_node, max(1, self._flows_leaving(settings, stage, self.gpus_per_switch)))

    def inside(self, flows: float) -> Path:
        """A node's own link, shared by so many rings or flows."""
        return _path(self.intra_node, flows)

    def outside(self, flows: float) -> Path:
        """The link between nodes, shared by so many; below 1 where one ring has several network cards."""
        return _path(self._between_nodes(), flows)

    def exchange_seconds(self, settings: Settings, stage: int, volume_bytes: float) -> float:
        """An all-to-all of `volume_bytes` a rank within one stage's data-parallel group, as the slowest link.

        Every rank sends each other rank its share directly. Of k ranks in one node (or behind one switch)
        each sends all but k shares outside, where a ring crosses once: an all-to-all loads a link between
        nodes k times as much. Groups of other stages do the same at the same time.
        """
        ranks, size = settings.sequence_data_parallel_size, settings.stage_ranks
        if ranks == 1 or volume_bytes == 0:
            return 0.0
        inner = _path(self.intra_node, 1)
        slowest = (ranks - 1) / ranks * volume_bytes / inner.bytes_per_second
        latency = inner.latency_seconds
        between = [(self.gpus_per_switch, self.intra_node, 1)] if self.gpus_per_switch > 1 else []
        if self.nodes > 1 and len(_spanned(stage * size, size, self.gpus_per_node)) > 1:
            between.append((self.gpus_per_node, self._between_nodes(), self.network_cards))
            latency = max(latency, _path(self._between_nodes(), 1).latency_seconds)
        for group, link, links in between:
            if len(_spanned(stage * size, size, group)) == 1:
                continue
            inside = max(1, min(ranks, group * ranks // size))
            leaving = inside * (ranks - inside) / ranks * volume_bytes
            flows = self._rings_sharing(settings, stage, group) / links
            slowest = max(slowest, leaving / _path(link, flows).bytes_per_second)
        return slowest + (ranks - 1) * latency

    def neighbours(self, ranks: int) -> Path:
        """The path of rings over groups of so many neighbouring ranks of one node: no two cross the same
        switch's uplink, since each switch's GPUs are then in one group."""
        assert ranks <= self.gpus_per_node, "neighbours share a node"
        return self.collectives.get("all_gather", _path(self.intra_node, 1))

    def _rings_sharing(self, settings: Settings, stage: int, group: int) -> int:
        """Rings across the busiest of the groups of `group` neighbours that this stage crosses: its first or
        its last, since no other stage has ranks in those between."""
        size, rings = settings.stage_ranks, settings.tensor_parallel_size
        spanned = _spanned(stage * size, size, group)
        if group == 1:
            return 1
        crossings = []
        for one in (spanned[0], spanned[-1]):
            stages = range(one * group // size, min(settings.world_size, (one + 1) * group - 1) // size + 1)
            stages = stages[: settings.pipeline_parallel_size - stages.start]
            crossings.append(sum(len(_spanned(other * size, size, group)) > 1 for other in stages))
        return max(rings * max(crossings), 1)

    def _flows_leaving(self, settings: Settings, stage: int, group: int) -> int:
        """Most flows from this stage to the next that leave one group of `group` neighbours; 0 for none."""
        if group == 1 and self.gpus_per_node > 1:
            return 0
        size = settings.stage_ranks
        first = stage * size
        if size >= group:  # all leave: as many as a group has of this stage's ranks
            spanned = _spanned(first, size, group)
            if len(spanned) > 2:
                return group
            return max(min((one + 1) * group, first + size) - max(one * group, first) for one in spanned)
        flows = Counter(
            rank // group for rank in range(first, first + size) if rank // group != (rank + size) // group
        )
        return max(flows.values(), default=0)

    def _between_nodes(self) -> Link:
        assert self.inter_node is not None, "a pool of several nodes has a link between them"
        return self.inter_node


def _spanned(first_rank: int, count: int, group: int) -> range:
    """The groups of `group` neighbouring ranks that ranks first_rank, first_rank + 1, ... lie in."""
    return range(first_rank // group, (first_rank + count - 1) // group + 1)


def _path(link: Link, flows: float) -> Path:
    return Path(
        bytes_per_second=link.bandwidth_gb_per_second * GB / flows,
        latency_seconds=link.latency_microseconds * MICROSECONDS,
    )


def _measured_link(link: Link, calibration: Calibration) -> Link:
    measured = {
        "bandwidth_gb_per_second": calibration.link_bandwidth_gb_per_second,
        "latency_microseconds": calibration.link_latency_microseconds,
    }
    return link.model_copy(
        update={key: middle(value) for key, value in measured.items() if value is not None}
    )


def _measured_collectives(calibration: Calibration) -> dict[str, Path]:
    """As rings: a collective's latency is that of its steps."""
    found = {}
    for name, passes in (("all_reduce", 2), ("all_gather", 1), ("reduce_scatter", 1)):
        rate = getattr(calibration, name)
        if rate is not None:
            steps = passes * (rate.ranks - 1)
            found[name] = Path(
                bytes_per_second=middle(rate.bandwidth_gb_per_second) * GB,
                latency_seconds=middle(rate.latency_microseconds) * MICROSECONDS / steps,
            )
    return found


class StepTraffic(NamedTuple):
    """Bytes of one stage's data-parallel collectives in one optimizer step, before the ring's factor."""

    reduce_bytes: float
    """Gradients, each time they are reduced."""
    reductions: int
    """Times a step that gradients are reduced."""
    reduce_passes: int
    """2 where the engine reduces with an all-reduce, 1 with a reduce-scatter."""
    gather_bytes: float
    """Parameters, each time they are gathered."""
    gathers: int
    """Times a step that parameters are gathered."""
    gather_messages: int
    """Collectives that one gather is made of."""
    secondary_gathers: int = 0
    """Times a step that parameters are gathered from ZeRO++'s second copy, within a node."""


def step_traffic(settings: Settings, parameters: int, trainable_parameters: int, layers: int) -> StepTraffic:
    """What the engine's optimizers send for one stage (DeepSpeed 0.19.8, runtime/).

    - Gradients travel in the model's dtype whatever dtype they accumulate in: `communication_data_type`
      defaults to it (engine.py:1719), and buckets are cast to it (engine.py:3800,
      zero/stage_1_and_2.py:2373). Where it is set, they travel in that.
    - ZeRO-0 and BF16_Optimizer (a bf16 pipeline): one all-reduce a step (engine.py:3921). The latter
      shards its states, so it gathers the updated parameters too (bf16_optimizer.py).
    - ZeRO-1: one all-reduce a step, even with `reduce_scatter`: since `use_multi_rank_bucket_allreduce`
      (default) slices for all ranks share a bucket that is all-reduced (zero/stage_1_and_2.py:1692).
      ZeRO-2 does the same after every micro-batch (engine.py:3084). Both then gather the updated
      parameters once (zero/stage_1_and_2.py, all_gather_dp_groups).
    - ZeRO-3: parameters are gathered, a layer at a time, in the forward and again in the backward of
      every micro-batch, and gradients reduce-scattered after each (zero/stage3.py:1931). Ignored: what
      `stage3_max_reuse_distance` keeps from one to the other. With ZeRO++'s second copy only the first
      gather after a step is from all ranks: the copy is made when forward releases a parameter, serves
      every gather of the step from then on, and goes when the optimizer has stepped
      (zero/partition_parameters.py:1571, :1769; zero/stage3.py:2846).
    - What is quantised or cast on its way weighs what `wire.py` says.
    """
    width = settings.element_bytes
    gradients = float(trainable_parameters * gradient_bytes(settings))
    micro_batches = settings.gradient_accumulation_steps
    if settings.zero_stage == 3:
        gathered = float(parameters * parameter_bytes(settings))
        inside = 2 * micro_batches - 1 if settings.hierarchical_partition_size > 1 else 0
        gathers = 2 * micro_batches - inside
        return StepTraffic(gradients, micro_batches, 1, gathered, gathers, layers, inside)
    shards_states = shards_optimizer(settings)
    updated = float(trainable_parameters * width)
    return StepTraffic(
        reduce_bytes=gradients,
        reductions=micro_batches if settings.zero_stage == 2 else 1,
        reduce_passes=2,
        gather_bytes=updated if shards_states else 0.0,
        gathers=1 if shards_states else 0,
        gather_messages=_buckets(trainable_parameters, settings.allgather_bucket_elements),
    )


def shards_optimizer(settings: Settings) -> bool:
    """Whether each data rank updates a share of the parameters, and gathers the rest."""
    return settings.zero_stage > 0 or engine_optimizer(settings) == "BF16_Optimizer"


def reduction_seconds(traffic: StepTraffic, path: Path, settings: Settings) -> float:
    """Seconds of one reduction of a stage's gradients, as a ring."""
    elements = traffic.reduce_bytes / gradient_bytes(settings)
    buckets = _buckets(elements, settings.reduce_bucket_elements)
    return path.ring_seconds(
        settings.sequence_data_parallel_size,
        traffic.reduce_bytes,
        passes=traffic.reduce_passes,
        messages=buckets,
    )


def quantised_reduction_seconds(
    traffic: StepTraffic, topology: Topology, settings: Settings, stage: int
) -> float:
    """Seconds of one reduction in int8 (model/compression.py): an all-to-all, then a ring gather.

    Or in ZeRO++'s int4 (comm/coalesced_collectives.py:31): an all-to-all within each node, then one of what
    is left between the nodes' GPUs of the same place."""
    volume = traffic.reduce_bytes
    if settings.gradient_compression == "int8":
        pieces = _buckets(volume / gradient_bytes(settings), PIECE_ELEMENTS)
        ring = topology.data_group(settings, stage, "all_gather").ring_seconds(
            settings.sequence_data_parallel_size, volume, passes=1, messages=pieces
        )
        return topology.exchange_seconds(settings, stage, volume) + ring
    inside = topology.gpus_per_node
    node = topology.neighbours(inside).ring_seconds(inside, volume, passes=1)
    between = topology.data_group(settings, stage, "reduce_scatter")
    return node + between.ring_seconds(settings.sequence_data_parallel_size // inside, volume, passes=1)


def gather_seconds(traffic: StepTraffic, path: Path, settings: Settings) -> float:
    """Seconds of one gather of a stage's parameters."""
    return path.ring_seconds(
        settings.sequence_data_parallel_size, traffic.gather_bytes, passes=1, messages=traffic.gather_messages
    )


def secondary_gather_seconds(traffic: StepTraffic, topology: Topology, settings: Settings) -> float:
    """Seconds of one gather from ZeRO++'s second copy."""
    ranks = settings.hierarchical_partition_size
    if ranks == 1:
        return 0.0
    return topology.neighbours(ranks).ring_seconds(
        ranks, traffic.gather_bytes, passes=1, messages=traffic.gather_messages
    )


def is_quantised(settings: Settings) -> bool:
    """Whether gradients are reduced in codes, not as a sum of numbers."""
    return settings.gradient_compression != "none" or settings.zero_quantized_gradients


def _buckets(elements: float, bucket_elements: int) -> int:
    return max(1, math.ceil(elements / bucket_elements))
