"""Which kind of GPU every rank of a pool has.

Ranks fill the nodes in their order and a node's GPUs in theirs (deepspeed/launcher/launch.py:159, 0.19.8; the
trainer puts each rank on its planned device, model/devices.py), and stages are neighbouring ranks, since the
pipeline is the outermost axis (runtime/pipe/topology.py:232). All ranks of a stage hold the same layers and
wait for each other, so a stage has the memory of its smallest GPU and the speed of its slowest.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from typing import NamedTuple

from vdsgen.cost.settings import Settings
from vdsgen.spec.lab import Gpu, Link, NodeGroup, Pool

Kinds = tuple[int, ...]
"""Numbers of the kinds among some ranks, each once, rising."""


class _Run(NamedTuple):
    """Neighbouring ranks on nodes that are alike."""

    first_rank: int
    ranks: int
    node: Kinds
    """The kind of each GPU of one node."""


class Devices:
    """The kinds of GPU of a pool whose names are resolved."""

    def __init__(self, pool: Pool) -> None:
        self.views: list[Pool] = []
        """For each kind a pool of that kind alone: what rates and capacities are asked of."""
        self._runs: list[_Run] = []
        self._stages: dict[tuple[int, int, int], Kinds] = {}
        self._classes: dict[tuple[int, int], tuple[int, ...]] = {}
        first = 0
        for group in pool.groups or ():
            assert group.gpus is not None, "groups are resolved before costs are asked for"
            node = tuple(self._number(_view(pool, group, gpu)) for gpu in group.gpus)
            self._runs.append(_Run(first, group.nodes * len(node), node))
            first += group.nodes * len(node)
        if pool.groups is None:
            self.views.append(pool)

    def _number(self, view: Pool) -> int:
        if view not in self.views:
            self.views.append(view)
        return self.views.index(view)

    def of_stage(self, settings: Settings, stage: int) -> Kinds:
        """The kinds among the ranks of one pipeline stage."""
        if len(self.views) == 1:
            return (0,)
        stages = settings.pipeline_parallel_size
        key = (settings.world_size, stages, stage)
        if key not in self._stages:
            size = settings.world_size // stages
            self._stages[key] = tuple(sorted(self.count(stage * size, size)))
        return self._stages[key]

    def classes(self, settings: Settings) -> tuple[int, ...]:
        """For each stage a number, the same for stages of the same kinds."""
        stages = settings.pipeline_parallel_size
        if len(self.views) == 1:
            return (0,) * stages
        key = (settings.world_size, stages)
        if key not in self._classes:
            numbers: dict[Kinds, int] = {}
            self._classes[key] = tuple(
                numbers.setdefault(self.of_stage(settings, stage), len(numbers)) for stage in range(stages)
            )
        return self._classes[key]

    def count(self, first_rank: int, ranks: int) -> Counter[int]:
        """How many of these neighbouring ranks have a GPU of each kind."""
        if len(self.views) == 1:
            return Counter({0: ranks})
        found: Counter[int] = Counter()
        index = bisect_right(self._runs, first_rank, key=lambda run: run.first_rank) - 1
        stop = first_rank + ranks
        for run in self._runs[index:]:
            begin, end = max(first_rank, run.first_rank), min(stop, run.first_rank + run.ranks)
            if begin >= end:
                break
            whole, rest = divmod(end - begin, len(run.node))
            for at, kind in enumerate(run.node):
                found[kind] += whole
                found[kind] += (at - (begin - run.first_rank)) % len(run.node) < rest
        return +found


def _view(pool: Pool, group: NodeGroup, gpu: str | Gpu) -> Pool:
    return pool.model_copy(
        update={
            "groups": None,
            "gpu": gpu,
            "nodes": 1,
            "gpus_per_node": group.gpus_per_node,
            "hosts": None,
            **{
                key: getattr(group, key)
                for key in (
                    "intra_node", "inter_node", "network_cards", "host_link", "gpus_per_host_link",
                    "host_memory_gib", "host_memory_bandwidth_gb_per_second", "cpu_cores", "calibration",
                    "price_per_gpu_hour",
                )
            },
        }
    )  # fmt: skip


def weakest(gpus: list[Gpu]) -> Gpu:
    """A GPU with the least of each figure, and only the formats that all have."""
    least: dict[str, float | None] = {}
    for key, field in Gpu.model_fields.items():
        values = [getattr(gpu, key) for gpu in gpus]
        known = [value for value in values if value is not None]
        # A format that one lacks, all lack; what only speeds a kind up does not count where it is not known.
        optional_rate = key.endswith("_tflops")
        missing = not known or (optional_rate and len(known) < len(values))
        least[key] = None if missing and not field.is_required() else min(known)
    return gpus[0] if all(gpu == gpus[0] for gpu in gpus) else gpus[0].model_copy(update=least)


def slowest_link(links: list[Link]) -> Link:
    """The least bandwidth and the longest latency."""
    return Link(
        bandwidth_gb_per_second=min(link.bandwidth_gb_per_second for link in links),
        latency_microseconds=max(link.latency_microseconds for link in links),
    )
