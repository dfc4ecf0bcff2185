"""Bytes from rank to rank in one step, and what each GPU's and each node's link carries of them.

Collectives are rings, as cost/communication.py has them: each rank sends to the next (n - 1) / n of the
volume a pass. All-to-alls between ranks that share samples go from each to each.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import accumulate, pairwise
from typing import NamedTuple

from vdsgen.cost.communication import step_traffic
from vdsgen.cost.compute import costs_of
from vdsgen.cost.sequence_parallel import EXCHANGES
from vdsgen.cost.sizes import MeanStepTimeModel
from vdsgen.cost.step import StepTimeModel
from vdsgen.report.plan.subject import PlanSubject
from vdsgen.spec.lab import Link, NodeGroup

KINDS = {
    "transfers": "activations and their gradients, from stage to stage",
    "reduction": "gradients, between data ranks",
    "gather": "parameters, between data ranks",
    "tensor": "exchange between tensor ranks",
    "sequence": "exchange between sequence ranks",
}


class Flow(NamedTuple):
    """What one rank sends another in a step."""

    source: int
    target: int
    kind: str
    sent_bytes: float


class Place(NamedTuple):
    """A rank's place."""

    rank: int
    stage: int
    node: int
    gpu: str


class LinkUse(NamedTuple):
    """One link, one direction."""

    name: str
    bytes_per_second: float
    bytes_by_kind: dict[str, float]

    @property
    def sent_bytes(self) -> float:
        return sum(self.bytes_by_kind.values())

    @property
    def seconds(self) -> float:
        """Were it always full while it sends."""
        return self.sent_bytes / self.bytes_per_second


def flows(subject: PlanSubject) -> list[Flow]:
    """Of the mean clip size."""
    return [*_transfers(subject), *_rings(subject), *_tensor(subject), *_sequence(subject)]


def places(subject: PlanSubject) -> list[Place]:
    """Of every rank: stages come one after the other, nodes are filled in the plan's order."""
    workload, settings = subject.workload, subject.settings
    topology = _models(subject)[0].hardware.topology
    found = []
    for rank in range(settings.world_size):
        (kind,) = workload.devices.count(rank, 1)
        name = workload.kind_names[kind] if workload.kind_names else workload.gpu_name
        found.append(Place(rank, rank // settings.stage_ranks, topology.node_of(rank), name))
    return found


def nodes(subject: PlanSubject) -> list[NodeGroup]:
    """The pool's nodes in the order of the ranks, names resolved."""
    return [group for group in subject.workload.pool.node_groups for _ in range(group.nodes)]


def gpu_links(subject: PlanSubject) -> list[LinkUse]:
    """What each rank's own link sends to GPUs of its node."""
    where, own = places(subject), nodes(subject)
    sent: dict[int, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for flow in flows(subject):
        if where[flow.source].node == where[flow.target].node:
            sent[flow.source][flow.kind] += flow.sent_bytes
    return [
        LinkUse(f"rank {one.rank}", _rate(own[one.node].intra_node), dict(sent[one.rank])) for one in where
    ]


def node_links(subject: PlanSubject) -> list[LinkUse]:
    """What each node sends to others, over all its network cards; empty for one node."""
    where, own = places(subject), nodes(subject)
    used = sorted({one.node for one in where})
    if len(used) < 2:
        return []
    sent: dict[int, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for flow in flows(subject):
        source, target = where[flow.source].node, where[flow.target].node
        if source != target:
            sent[source][flow.kind] += flow.sent_bytes
    return [
        LinkUse(
            f"node {node}", _rate(own[node].inter_node) * (own[node].network_cards or 1), dict(sent[node])
        )
        for node in used
    ]


def _rate(link: object) -> float:
    assert isinstance(link, Link), "links are resolved before costs are asked for"
    return link.bandwidth_gb_per_second * 1e9


def _models(subject: PlanSubject) -> list[StepTimeModel]:
    times = subject.workload.times
    return list(times.models) if isinstance(times, MeanStepTimeModel) else [times]


def _transfers(subject: PlanSubject) -> Iterator[Flow]:
    """Forward what a stage hands on, back its gradient; every rank of a stage to its like."""
    settings, models = subject.settings, _models(subject)
    volumes = [model.boundary_bytes(settings) for model in models]
    size = settings.stage_ranks
    for stage, boundary in enumerate(subject.partition[1:-1]):
        each = sum(layers[boundary - 1] for layers in volumes) / len(volumes)
        each *= settings.gradient_accumulation_steps
        for place in range(size):
            rank = stage * size + place
            yield Flow(rank, rank + size, "transfers", each)
            yield Flow(rank + size, rank, "transfers", each)


def _rings(subject: PlanSubject) -> Iterator[Flow]:
    """Gradients reduced and parameters gathered among a stage's data ranks."""
    settings = subject.settings
    count = settings.sequence_data_parallel_size
    if count == 1:
        return
    profile = subject.workload.costed.shared_by(settings.tensor_parallel_size)
    types = [profile.layer_types[name] for name in profile.layers]
    parameters = [0, *accumulate(layer.parameters for layer in types)]
    trainable = [0, *accumulate(layer.trainable_parameters for layer in types)]
    size, ring_share = settings.stage_ranks, (count - 1) / count
    for stage, (start, stop) in enumerate(pairwise(subject.partition)):
        traffic = step_traffic(
            settings, parameters[stop] - parameters[start], trainable[stop] - trainable[start], stop - start
        )
        volumes = {
            "reduction": traffic.reductions * traffic.reduce_passes * ring_share * traffic.reduce_bytes,
            "gather": traffic.gathers * ring_share * traffic.gather_bytes,
        }
        shared = size // count
        for at in range(shared):
            ring = range(stage * size + at, (stage + 1) * size, shared)
            for place, rank in enumerate(ring):
                for kind, volume in volumes.items():
                    if volume:
                        yield Flow(rank, ring[(place + 1) % count], kind, volume)
        held = settings.hierarchical_partition_size
        again = traffic.secondary_gathers * (held - 1) / held * traffic.gather_bytes
        if again:  # ZeRO++'s second copy, among neighbours
            for first in range(stage * size, (stage + 1) * size, held):
                for place in range(held):
                    yield Flow(first + place, first + (place + 1) % held, "gather", again)


def _tensor(subject: PlanSubject) -> Iterator[Flow]:
    """Blocks' own collectives; a layer that is recomputed whole repeats its forward's."""
    settings = subject.settings
    ranks = settings.tensor_parallel_size
    if ranks == 1:
        return
    profile = subject.workload.costed.shared_by(ranks)
    geometries = [
        one._replace(sequence_parallel_size=settings.sequence_parallel_size)
        for one in subject.workload.geometries
    ]
    for stage, (start, stop) in enumerate(pairwise(subject.partition)):
        whole = start + settings.whole_layers(stage, stop - start)
        volume = 0.0
        for index in range(start, stop):
            for one in profile.layer_types[profile.layers[index]].collectives or ():
                elements = sum(one.elements.at(settings.micro_batch_size, g) for g in geometries) / len(
                    geometries
                )
                passes = 2 if one.kind == "all_reduce" else 1
                again = 2 if one.phase == "forward" and index < whole else 1
                volume += again * one.count * passes * elements * settings.element_bytes
        volume *= settings.gradient_accumulation_steps * (ranks - 1) / ranks
        for first in range(stage * settings.stage_ranks, (stage + 1) * settings.stage_ranks, ranks):
            for place in range(ranks):
                yield Flow(first + place, first + (place + 1) % ranks, "tensor", volume)


def _sequence(subject: PlanSubject) -> Iterator[Flow]:
    """All-to-alls of blocks; every layer that is recomputed exchanges once more."""
    settings = subject.settings
    ranks, tensor = settings.sequence_parallel_size, settings.tensor_parallel_size
    if ranks == 1:
        return
    profile = subject.workload.costed.shared_by(tensor)
    geometries = [one._replace(sequence_parallel_size=ranks) for one in subject.workload.geometries]
    for stage, (start, stop) in enumerate(pairwise(subject.partition)):
        recomputed = start + settings.checkpointed_layers(stage, stop - start)
        volume = 0.0
        for index in range(start, stop):
            name = profile.layers[index]
            if not profile.layer_types[name].is_block:
                continue
            output = costs_of(profile, name, settings.dtype).output_bytes
            share = sum(output.at(settings.micro_batch_size, g) for g in geometries) / len(geometries)
            volume += EXCHANGES * share * (3 if index < recomputed else 2)
        volume *= settings.gradient_accumulation_steps / ranks
        size = settings.stage_ranks
        for first in range(stage * size, (stage + 1) * size, ranks * tensor):
            for at in range(tensor):
                group = range(first + at, first + ranks * tensor, tensor)
                for source in group:
                    for target in group:
                        if source != target:
                            yield Flow(source, target, "sequence", volume)
