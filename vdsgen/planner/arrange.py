"""The orders in which a pool's unequal GPUs may be given to ranks, and which of them to leave out.

Stages are neighbouring ranks, so the order decides which GPUs share a stage and which stages are first: those
hold the most micro-batches, and want the larger GPUs. A plain pool has one order. A slow kind may hold the
others up, so kinds are also left out. What is tried, at most MOST of them, the more promising first:

- every choice of kinds (of the first MOST_KINDS; what is beyond always stays in);
- groups of nodes in every order (of the first MOST_GROUPS; else as written and reversed);
- the GPUs of one node by kind, in every order of kinds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, permutations, product

from vdsgen.catalog import resolve_gpu
from vdsgen.cost.rates import peak_rate_tflops
from vdsgen.planner.unequal import UsedNode, ordered_pool, used_nodes, written_nodes
from vdsgen.spec.lab import Gpu, NodeGroup, Pool

MOST = 24
"""Each is a search of its own."""
MOST_KINDS = 3
MOST_GROUPS = 3


def arrangements(pool: Pool) -> list[list[UsedNode]]:
    """Orders of a pool that is not plain, each once; the first is all GPUs, the larger ones first.

    Orders that only swap GPUs that are alike are the same.
    """
    groups = pool.node_groups
    kinds = _larger_first(pool)
    found: dict[Pool, list[UsedNode]] = {}
    for chosen, order in product(_choices(kinds), _orders(groups, kinds)):
        for ranking in permutations(chosen):
            used = _used(pool, order, ranking)
            if used:
                found.setdefault(ordered_pool(pool, used), used)
            if len(found) >= MOST:
                return list(found.values())
    return list(found.values()) or [used_nodes(pool)]


def _larger_first(pool: Pool) -> list[Gpu]:
    """The kinds of free GPU: the larger first, then the faster."""

    def size(gpu: Gpu) -> tuple[float, float]:
        rates = [peak_rate_tflops(gpu, "bf16"), peak_rate_tflops(gpu, "fp16"), gpu.fp32_tflops]
        return (-(gpu.memory_gib or 0.0), -max(rate for rate in rates if rate is not None))

    return sorted(dict.fromkeys(resolve_gpu(kind) for kind in pool.kinds), key=size)


def _choices(kinds: Sequence[Gpu]) -> Iterator[tuple[Gpu, ...]]:
    """All kinds, then fewer."""
    optional, always = kinds[:MOST_KINDS], tuple(kinds[MOST_KINDS:])
    for size in range(len(optional), -1, -1):
        for some in combinations(optional, size):
            if some or always:
                yield (*some, *always)


def _orders(groups: Sequence[NodeGroup], kinds: Sequence[Gpu]) -> list[tuple[int, ...]]:
    """Orders of the groups; the one with the larger GPUs first comes first."""

    def rank(index: int) -> int:
        return min(kinds.index(resolve_gpu(kind)) for kind in groups[index].kinds)

    first = tuple(sorted(range(len(groups)), key=lambda index: (rank(index), index)))
    if len(groups) <= MOST_GROUPS:
        return list(permutations(first))
    return list(dict.fromkeys([first, tuple(range(len(groups))), tuple(reversed(first))]))


def _used(pool: Pool, order: Sequence[int], ranking: Sequence[Gpu]) -> list[UsedNode]:
    """The nodes of the groups in this order, their GPUs in the order of kinds; other kinds left out."""
    place = {kind: index for index, kind in enumerate(ranking)}
    devices = []
    for group in pool.node_groups:
        kept = [
            (place[kind], device)
            for device, name in zip(group.devices, group.kinds, strict=True)
            if (kind := resolve_gpu(name)) in place
        ]
        devices.append(tuple(device for _, device in sorted(kept)))
    written = list(enumerate(written_nodes(pool)))
    return [
        UsedNode(at, devices[index])
        for index in order
        for at, node in written
        if node.group == index and devices[index]
    ]
