"""What moves between GPUs in one optimizer step, and how long it takes on a pool's links.

Ranks are laid out as DeepSpeed's PipeDataParallelTopology does (pipe/topology.py:232): row-major over
the axes (pipe, data), so the ranks of one stage's data-parallel group are neighbours and the next
stage's peer is data_parallel_size ranks away. Rank r sits on node r // gpus_per_node.

Collectives are bandwidth-optimal rings (Patarasso and Yuan 2009, doi 10.1016/j.jpdc.2008.09.002):
an all-reduce moves 2 (n - 1) / n of the data over each link, a gather or a scatter half of that.
Ignored: trees and other algorithms that NCCL may pick for small messages, and contention inside a
node (a PCIe switch or root complex shared by several GPUs).
"""

from __future__ import annotations

import math
from collections import Counter
from typing import NamedTuple

from vdsgen.cost.model_states import engine_optimizer
from vdsgen.cost.settings import Settings
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

    def send_seconds(self, volume_bytes: float, messages: int = 1) -> float:
        """One point-to-point transfer of `messages` tensors."""
        return volume_bytes / self.bytes_per_second + messages * self.latency_seconds


class Topology(NamedTuple):
    """A pool's links, as the ranks of one layout see them."""

    nodes: int
    gpus_per_node: int
    intra_node: Link
    inter_node: Link | None

    @classmethod
    def of(cls, pool: Pool) -> Topology:
        """The links of a pool whose names are resolved; measured link figures replace the inner link's."""
        assert isinstance(pool.intra_node, Link), "links are resolved before costs are asked for"
        assert not isinstance(pool.inter_node, str), "links are resolved before costs are asked for"
        intra = pool.intra_node
        if pool.calibration is not None:
            measured = {
                "bandwidth_gb_per_second": pool.calibration.link_bandwidth_gb_per_second,
                "latency_microseconds": pool.calibration.link_latency_microseconds,
            }
            known = {key: value for key, value in measured.items() if value is not None}
            intra = intra.model_copy(update=known)
        return cls(pool.nodes, pool.gpus_per_node, intra, pool.inter_node)

    def node_of(self, rank: int) -> int:
        return rank // self.gpus_per_node

    def data_group(self, settings: Settings, stage: int) -> Path:
        """The path of one stage's data-parallel ring.

        A ring enters and leaves each node once, so it has the inter-node link to itself, unless rings of
        other stages cross the same node: those run at the same time and share it.
        """
        size = settings.data_parallel_size
        nodes = self._nodes_of(stage * size, size)
        if len(nodes) == 1:
            return _path(self.intra_node, 1)
        crossings: Counter[int] = Counter()
        for other in range(settings.pipeline_parallel_size):
            spanned = self._nodes_of(other * size, size)
            if len(spanned) > 1:
                crossings.update(spanned)
        return _path(self._between_nodes(), max(crossings[node] for node in nodes))

    def stage_boundary(self, settings: Settings, stage: int) -> Path:
        """The path from `stage` to the next: every data-parallel index sends at the same time."""
        size = settings.data_parallel_size
        first = stage * size
        flows = Counter(
            self.node_of(rank)
            for rank in range(first, first + size)
            if self.node_of(rank) != self.node_of(rank + size)
        )
        if not flows:
            return _path(self.intra_node, 1)
        return _path(self._between_nodes(), max(flows.values()))

    def _nodes_of(self, first_rank: int, count: int) -> range:
        return range(self.node_of(first_rank), self.node_of(first_rank + count - 1) + 1)

    def _between_nodes(self) -> Link:
        assert self.inter_node is not None, "a pool of several nodes has a link between them"
        return self.inter_node


def _path(link: Link, flows: int) -> Path:
    return Path(
        bytes_per_second=link.bandwidth_gb_per_second * GB / flows,
        latency_seconds=link.latency_microseconds * MICROSECONDS,
    )


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
