"""Pools that are not plain: nodes that differ, GPUs of several kinds, GPUs that are not free.

A workload has its GPUs in the order of the ranks, as groups of nodes that are alike; where all turn out to be
alike it has a plain pool, and nothing more than that is left of how it was written.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from vdsgen.catalog import resolve_gpu, resolve_host_link, resolve_link
from vdsgen.cost.devices import Devices, slowest_link, weakest
from vdsgen.planner.workload import Workload
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.lab import Gpu, Link, NodeGroup, Pool
from vdsgen.spec.plan import PlannedNode
from vdsgen.spec.profile import ModelProfile


class UsedNode(NamedTuple):
    """A node of a pool, and its GPUs in the order of the ranks on them."""

    node: int
    """Its place in the lab file, from 0."""
    devices: tuple[int, ...]


class WrittenNode(NamedTuple):
    """A node as the lab file has it."""

    group: int
    host: str | None
    gpus: int
    devices: tuple[int, ...]
    """That are free."""


def written_nodes(pool: Pool) -> list[WrittenNode]:
    """Every node, in the order of the lab file."""
    nodes = []
    for index, group in enumerate(pool.node_groups):
        devices, gpus = group.devices, group.gpus_per_node
        assert gpus is not None
        for host in group.hosts or (None,) * group.nodes:
            nodes.append(WrittenNode(index, host, gpus, devices))
    return nodes


def used_nodes(pool: Pool) -> list[UsedNode]:
    """Every node with all its free GPUs, in the order of the lab file."""
    return [UsedNode(at, node.devices) for at, node in enumerate(written_nodes(pool))]


def planned_nodes(pool: Pool, used: Sequence[UsedNode], world_size: int) -> tuple[PlannedNode, ...]:
    """The nodes that the first `world_size` ranks are on."""
    written = written_nodes(pool)
    planned: list[PlannedNode] = []
    left = world_size
    for one in used:
        if left > 0:
            node = written[one.node]
            planned.append(
                PlannedNode(node=one.node, host=node.host, gpus=node.gpus, devices=one.devices[:left])
            )
            left -= len(one.devices)
    return tuple(planned)


def ordered_pool(pool: Pool, used: Sequence[UsedNode]) -> Pool:
    """These GPUs of the pool, in this order. Raises InputError where the catalogue lacks a name."""
    written, nodes = [_resolved(group) for group in pool.node_groups], written_nodes(pool)
    groups: list[NodeGroup] = []
    for (index, devices), run in groupby(used, key=lambda one: (nodes[one.node].group, one.devices)):
        group, count = _of_devices(written[index], devices), len(list(run))
        if groups and groups[-1].model_copy(update={"nodes": 1}) == group:
            count += groups.pop().nodes
        groups.append(group.model_copy(update={"nodes": count}))
    return _pool_of(pool, groups)


def unequal_workload(
    experiment: Experiment, pool: Pool, profile: ModelProfile, used: Sequence[UsedNode]
) -> Workload:
    """On these GPUs of the pool. Raises InputError where the catalogue lacks a name."""
    resolved = ordered_pool(pool, used)
    names = {resolve_gpu(kind): gpu_name(pool, kind) for kind in reversed(pool.kinds)}
    kinds = tuple(names[view.gpu] for view in Devices(resolved).views if isinstance(view.gpu, Gpu))
    return Workload(experiment, resolved, " + ".join(dict.fromkeys(kinds)), profile, kinds)


def gpu_name(pool: Pool, gpu: str | Gpu) -> str:
    """For people."""
    return gpu if isinstance(gpu, str) else f"the GPU of pool {pool.name}"


def _resolved(group: NodeGroup) -> NodeGroup:
    """Figures for names; `gpus` by device number, whether free or not."""
    assert group.gpus_per_node is not None
    assert group.intra_node is not None
    kinds = group.gpus or (group.gpu,) * group.gpus_per_node
    gpus = [kind for kind in kinds if kind is not None]
    hosts = [resolve_host_link(group.host_link, kind) for kind in dict.fromkeys(gpus)]
    known = [link for link in hosts if link is not None]
    return group.model_copy(
        update={
            "nodes": 1,
            "gpu": None,
            "gpus": tuple(resolve_gpu(kind) for kind in gpus),
            "free_gpus": None,
            "hosts": None,
            "intra_node": resolve_link(group.intra_node),
            "inter_node": None if group.inter_node is None else resolve_link(group.inter_node),
            "host_link": slowest_link(known) if known else None,
        }
    )


def _of_devices(group: NodeGroup, devices: Sequence[int]) -> NodeGroup:
    assert group.gpus is not None
    gpus = tuple(group.gpus[device] for device in devices)
    return group.model_copy(update={"gpus": gpus, "gpus_per_node": len(gpus)})


def _pool_of(pool: Pool, groups: Sequence[NodeGroup]) -> Pool:
    """What the pool says of all its nodes is true of the weakest; a plain pool where they are alike."""
    gpus = list(dict.fromkeys(gpu for group in groups for gpu in group.gpus or () if isinstance(gpu, Gpu)))
    first = groups[0]
    alike = len(groups) == 1 and len(gpus) == 1
    links = {
        key: [link for group in groups if isinstance(link := getattr(group, key), Link)]
        for key in ("intra_node", "inter_node", "host_link")
    }
    least = {
        key: min((getattr(group, key) for group in groups if getattr(group, key) is not None), default=None)
        for key in (
            "network_cards", "host_memory_gib", "host_memory_bandwidth_gb_per_second", "cpu_cores",
        )
    }  # fmt: skip
    return pool.model_copy(
        update={
            **{key: slowest_link(found) if found else None for key, found in links.items()},
            **least,
            "gpu": weakest(gpus),
            "gpus": None,
            "nodes": sum(group.nodes for group in groups),
            "gpus_per_node": max(group.gpus_in_use for group in groups),
            "free_gpus": None,
            "groups": None if alike else tuple(groups),
            "hosts": None,
            "gpus_per_host_link": max(group.gpus_per_host_link or 1 for group in groups),
            "price_per_gpu_hour": first.price_per_gpu_hour if alike else None,
            "calibration": first.calibration if alike else None,
        }
    )
