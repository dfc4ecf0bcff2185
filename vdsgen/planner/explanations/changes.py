"""Workloads with more of one thing: what sensitivities are asked of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from vdsgen.catalog.hardware import pool_problems
from vdsgen.catalog.load import links
from vdsgen.cost.offload import HOST_LINK
from vdsgen.planner.again import changed
from vdsgen.planner.workload import Workload
from vdsgen.spec.calibration import Calibration
from vdsgen.spec.explanations import Resource
from vdsgen.spec.lab import Gpu, Link, NodeGroup, Pool
from vdsgen.spec.step_factors import StepFactors

LinkKey = Literal["intra_node", "inter_node", "host_link"]
MEASURED_LINKS: dict[LinkKey, tuple[str, ...]] = {
    "intra_node": (
        "link_bandwidth_gb_per_second",
        "link_latency_microseconds",
        "all_reduce",
        "all_gather",
        "reduce_scatter",
    ),
    "inter_node": (),
    "host_link": ("host_link_bandwidth_gb_per_second",),
}
"""What a calibration says of each."""
GPU_RATES = (
    "fp32_tflops", "fp16_tflops", "bf16_tflops", "fp8_tflops", "int8_tflops",
    "memory_bandwidth_gb_per_second", "special_function_tera_per_second",
)  # fmt: skip
COMPUTE_FACTORS = ("compute_factor", "recompute_factor", "optimizer_factor")
BETWEEN_NODES = ("ethernet-25g", "infiniband-hdr")
"""Tried for a second node where the lab has one: a workstation's network, and a cluster's."""
NETWORKS = ("infiniband", "ethernet")


Nodes = Pool | NodeGroup
"""Nodes that are alike, their names resolved; a pool stands for all its nodes."""


class Change(NamedTuple):
    """A workload with more of something."""

    resource: Resource
    words: str
    workload: Workload


def _each_group(workload: Workload, change: Callable[[Nodes], Nodes]) -> Workload:
    """The pool, and where its nodes differ each group of them, changed in one way."""
    pool = workload.pool
    groups = None if pool.groups is None else tuple(change(group) for group in pool.groups)
    larger = change(pool)
    assert isinstance(larger, Pool)
    return changed(workload, pool=larger.model_copy(update={"groups": groups}))


def _each_gpu(nodes: Nodes, change: Callable[[Gpu], Gpu]) -> Nodes:
    update: dict[str, object] = {}
    if isinstance(nodes.gpu, Gpu):
        update["gpu"] = change(nodes.gpu)
    if nodes.gpus is not None:
        update["gpus"] = tuple(change(gpu) for gpu in nodes.gpus if isinstance(gpu, Gpu))
    return nodes.model_copy(update=update)


def _scaled(gpu: Gpu, factor: float) -> Gpu:
    rates = {name: getattr(gpu, name) for name in GPU_RATES}
    return gpu.model_copy(update={name: rate * factor for name, rate in rates.items() if rate is not None})


def _linked(nodes: Nodes, key: LinkKey, link: Link) -> Nodes:
    update: dict[str, object] = {key: link}
    if isinstance(nodes.calibration, Calibration):
        update["calibration"] = nodes.calibration.model_copy(update=dict.fromkeys(MEASURED_LINKS[key]))
    return nodes.model_copy(update=update)


def with_gpu_speed(workload: Workload, factor: float) -> Workload:
    """So many times the rates and the memory bandwidth; of a calibrated pool, forward, backward and an
    optimizer on the GPU so many times as fast as they were measured."""

    def faster(nodes: Nodes) -> Nodes:
        if nodes.calibration is None:
            return _each_gpu(nodes, lambda gpu: _scaled(gpu, factor))
        assert isinstance(nodes.calibration, Calibration)
        factors = nodes.calibration.step_factors or StepFactors()
        scaled = {name: getattr(factors, name) / factor for name in COMPUTE_FACTORS}
        measured = {"step_factors": factors.model_copy(update=scaled)}
        return nodes.model_copy(update={"calibration": nodes.calibration.model_copy(update=measured)})

    return _each_group(workload, faster)


def with_gpu_memory(workload: Workload, gib: float) -> Workload:
    """So much memory on the smallest GPU, and as much more on every other; on a node whose ranks share its
    memory, in the node."""
    if workload.ranks_share_host_memory:
        return with_host_memory(workload, gib)
    added = gib - memory_gib(workload)

    def larger(gpu: Gpu) -> Gpu:
        return gpu.model_copy(update={"memory_gib": (gpu.memory_gib or 0.0) + added})

    return _each_group(workload, lambda nodes: _each_gpu(nodes, larger))


def memory_gib(workload: Workload) -> float:
    """What `with_gpu_memory` changes."""
    assert isinstance(workload.pool.gpu, Gpu)
    own = workload.pool.gpu.memory_gib
    return workload.pool.host_memory_gib if own is None else own


def with_host_memory(workload: Workload, gib: float) -> Workload:
    """So much memory in the node that has least, and as much more in every other."""
    added = gib - workload.pool.host_memory_gib

    def larger(nodes: Nodes) -> Nodes:
        return nodes.model_copy(update={"host_memory_gib": (nodes.host_memory_gib or 0.0) + added})

    return _each_group(workload, larger)


def with_global_batch(workload: Workload, size: int) -> Workload:
    """So many clips a step."""
    experiment = workload.experiment
    training = experiment.training.model_copy(update={"global_batch_size": size})
    return changed(workload, experiment=experiment.model_copy(update={"training": training}))


def link_of(workload: Workload, key: LinkKey) -> Link | None:
    """A link's figures; None where the pool has no such link."""
    link = getattr(workload.pool, key)
    assert not isinstance(link, str), "links are resolved before costs are asked for"
    if key == "inter_node" and workload.pool.nodes == 1:
        return None
    return HOST_LINK if link is None and key == "host_link" else link


def with_link(workload: Workload, key: LinkKey, link: Link) -> Workload:
    """Another link in its place: what was measured of the old one is left out."""
    return _each_group(workload, lambda nodes: _linked(nodes, key, link))


def with_faster_link(workload: Workload, key: LinkKey, factor: float) -> Workload:
    """So many times the bandwidth, and so many times less latency."""

    def faster(nodes: Nodes) -> Nodes:
        link = getattr(nodes, key)
        if link is None and key != "host_link":
            return nodes
        link = link or HOST_LINK
        return _linked(
            nodes,
            key,
            Link(
                bandwidth_gb_per_second=link.bandwidth_gb_per_second * factor,
                latency_microseconds=link.latency_microseconds / factor,
            ),
        )

    return _each_group(workload, faster)


def more_gpus(workload: Workload) -> Iterator[Change]:
    """One GPU more in the node, two more, to twice as many; in pools of several nodes nodes are added."""
    pool = workload.pool
    if pool.nodes > 1 or pool.groups is not None:
        return
    for gpus in range(pool.gpus_per_node + 1, 2 * pool.gpus_per_node + 1):
        larger = pool.model_copy(update={"gpus_per_node": gpus})
        words = f"{gpus} GPUs in the node (now {pool.gpus_per_node})"
        yield Change("gpus", words, changed(workload, pool=larger))


def another_node(workload: Workload) -> Iterator[Change]:
    """The next node, over the lab's network or over two that it could have; where nodes differ, which of them
    to buy is nobody's guess."""
    pool = workload.pool
    if workload.ranks_share_host_memory or pool.groups is not None:
        return
    own = pool.inter_node
    assert not isinstance(own, str), "links are resolved before costs are asked for"
    known = {"": own} if own is not None else {name: links()[name].figures for name in BETWEEN_NODES}
    for name, link in known.items():
        larger = pool.model_copy(update={"nodes": pool.nodes + 1, "inter_node": link, "hosts": None})
        over = f" over {name}" if name else ""
        words = f"{larger.nodes} nodes{over}, {larger.world_size} GPUs (now {pool.nodes}, {pool.world_size})"
        yield Change("nodes", words, changed(workload, pool=larger))


def next_links(workload: Workload, named: Pool) -> Iterator[Change]:
    """The next faster link of the catalogue: in a node of the same kind (and what else the GPU can have),
    between nodes of any network. `named` is the pool as the lab file gives it."""
    if workload.pool.groups is not None:
        return
    inner = link_of(workload, "intra_node")
    assert inner is not None
    kind = links()[named.intra_node].kind if isinstance(named.intra_node, str) else None
    faster = _faster(inner)
    can_have = [name for name in faster if not pool_problems(named.model_copy(update={"intra_node": name}))]
    own = [name for name in can_have if links()[name].kind not in (*NETWORKS, "memory")][:1]
    same = [name for name in faster if _joins_all(workload, name, kind) and name not in own][:1]
    for name in own + same:
        note = "" if name in own else f" ({workload.gpu_name} has no such link)"
        words = f"{name} in the node, {links()[name].bandwidth_gb_per_second:g} GB/s{note}"
        yield Change("intra_node", words, with_link(workload, "intra_node", links()[name].figures))
    outer = link_of(workload, "inter_node")
    if outer is None:
        return
    for name in [name for name in _faster(outer) if links()[name].kind in NETWORKS][:1]:
        words = f"{name} between nodes, {links()[name].bandwidth_gb_per_second:g} GB/s"
        yield Change("inter_node", words, with_link(workload, "inter_node", links()[name].figures))


def _joins_all(workload: Workload, name: str, kind: str | None) -> bool:
    """Whether a link is of this kind and connects all GPUs of a node."""
    link = links()[name]
    return link.kind == kind and (link.joins is None or link.joins >= workload.pool.gpus_per_node)


def _faster(link: Link) -> list[str]:
    """Names of links with more bandwidth, rising; those of one bandwidth in the catalogue's order."""
    rates = {name: entry.bandwidth_gb_per_second for name, entry in links().items()}
    return sorted(
        (name for name, rate in rates.items() if rate > link.bandwidth_gb_per_second),
        key=lambda name: rates[name],
    )


def without_pins(workload: Workload) -> Iterator[Change]:
    """Each pin let go, and all of them where there are several."""
    experiment = workload.experiment
    pins, training = experiment.constraints, experiment.training
    pinned = {key: value for key, value in pins if value is not None}
    for key, value in pinned.items():
        others = {"constraints": pins.model_copy(update={key: None})}
        yield Change(
            "pin",
            f"without constraints.{key}: {value}",
            changed(workload, experiment=experiment.model_copy(update=others)),
        )
    every = {"constraints": type(pins)(), "training": training}
    if training.precision != "auto":
        every["training"] = training.model_copy(update={"precision": "auto"})
        yield Change(
            "pin",
            f"without training.precision: {training.precision}",
            changed(workload, experiment=experiment.model_copy(update={"training": every["training"]})),
        )
    if len(pinned) + (training.precision != "auto") > 1:
        yield Change(
            "pin", "without any pin", changed(workload, experiment=experiment.model_copy(update=every))
        )
