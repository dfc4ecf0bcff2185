"""What moves between GPUs in one optimizer step, and how long it takes on a pool's links.

Ranks are laid out as DeepSpeed's PipeDataParallelTopology does (pipe/topology.py:232): row-major over
the axes (pipe, data), so the ranks of one stage's data-parallel group are neighbours and the next
stage's peer is data_parallel_size ranks away. Rank r sits on node r // gpus_per_node.

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

from vdsgen.cost.model_states import engine_optimizer
from vdsgen.cost.settings import Settings
from vdsgen.spec.calibration import Calibration, middle
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
        size = settings.data_parallel_size
        if len(_spanned(stage * size, size, self.gpus_per_node)) > 1:
            rings = self._rings_sharing(settings, stage, self.gpus_per_node)
            outer = _path(self._between_nodes(), rings / self.network_cards)
            inner = _path(self.intra_node, 1)
            return outer if outer.bytes_per_second < inner.bytes_per_second else inner.slower_start(outer)
        if collective in self.collectives:
            return self.collectives[collective]
        return _path(self.intra_node, self._rings_sharing(settings, stage, self.gpus_per_switch))

    def stage_boundary(self, settings: Settings, stage: int) -> Path:
        """The path from `stage` to the next: every data-parallel index sends at the same time.

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

    def _rings_sharing(self, settings: Settings, stage: int, group: int) -> int:
        """Rings across the busiest of the groups of `group` neighbours that this stage crosses."""
        if group == 1:
            return 1
        size = settings.data_parallel_size
        crossings: Counter[int] = Counter()
        for other in range(settings.pipeline_parallel_size):
            spanned = _spanned(other * size, size, group)
            if len(spanned) > 1:
                crossings.update(spanned)
        return max([crossings[one] for one in _spanned(stage * size, size, group)] + [1])

    def _flows_leaving(self, settings: Settings, stage: int, group: int) -> int:
        """Most flows from this stage to the next that leave one group of `group` neighbours; 0 for none."""
        if group == 1 and self.gpus_per_node > 1:
            return 0
        size = settings.data_parallel_size
        first = stage * size
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


def step_traffic(settings: Settings, parameters: int, trainable_parameters: int, layers: int) -> StepTraffic:
    """What the engine's optimizers send for one stage (DeepSpeed 0.19.8, runtime/).

    - Gradients travel in the model's dtype whatever dtype they accumulate in: `communication_data_type`
      defaults to it (engine.py:1719), and buckets are cast to it (engine.py:3800,
      zero/stage_1_and_2.py:2373).
    - ZeRO-0 and BF16_Optimizer (a bf16 pipeline): one all-reduce a step (engine.py:3921). The latter
      shards its states, so it gathers the updated parameters too (bf16_optimizer.py).
    - ZeRO-1: one all-reduce a step, even with `reduce_scatter`: since `use_multi_rank_bucket_allreduce`
      (default) slices for all ranks share a bucket that is all-reduced (zero/stage_1_and_2.py:1692).
      ZeRO-2 does the same after every micro-batch (engine.py:3084). Both then gather the updated
      parameters once (zero/stage_1_and_2.py, all_gather_dp_groups).
    - ZeRO-3: parameters are gathered, a layer at a time, in the forward and again in the backward of
      every micro-batch, and gradients reduce-scattered after each (zero/stage3.py:1931). Ignored: what
      `stage3_max_reuse_distance` keeps from one to the other.
    """
    width = settings.element_bytes
    gradients = float(trainable_parameters * width)
    micro_batches = settings.gradient_accumulation_steps
    if settings.zero_stage == 3:
        gathered = float(parameters * width)
        return StepTraffic(gradients, micro_batches, 1, gathered, 2 * micro_batches, layers)
    shards_states = shards_optimizer(settings)
    return StepTraffic(
        reduce_bytes=gradients,
        reductions=micro_batches if settings.zero_stage == 2 else 1,
        reduce_passes=2,
        gather_bytes=gradients if shards_states else 0.0,
        gathers=1 if shards_states else 0,
        gather_messages=_buckets(gradients, settings.allgather_bucket_elements, settings),
    )


def shards_optimizer(settings: Settings) -> bool:
    """Whether each data rank updates a share of the parameters, and gathers the rest."""
    return settings.zero_stage > 0 or engine_optimizer(settings) == "BF16_Optimizer"


def reduction_seconds(traffic: StepTraffic, path: Path, settings: Settings) -> float:
    """Seconds of one reduction of a stage's gradients."""
    buckets = _buckets(traffic.reduce_bytes, settings.reduce_bucket_elements, settings)
    return path.ring_seconds(
        settings.data_parallel_size, traffic.reduce_bytes, passes=traffic.reduce_passes, messages=buckets
    )


def gather_seconds(traffic: StepTraffic, path: Path, settings: Settings) -> float:
    """Seconds of one gather of a stage's parameters."""
    return path.ring_seconds(
        settings.data_parallel_size, traffic.gather_bytes, passes=1, messages=traffic.gather_messages
    )


def _buckets(volume_bytes: float, bucket_elements: int, settings: Settings) -> int:
    return max(1, math.ceil(volume_bytes / settings.element_bytes / bucket_elements))
