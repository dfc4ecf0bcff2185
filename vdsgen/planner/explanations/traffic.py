"""Which traffic of a plan goes over which link, and for how long."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from vdsgen.cost.communication import step_traffic
from vdsgen.cost.sizes import MeanStepTimeModel
from vdsgen.planner.explanations.changes import LinkKey, link_of, with_faster_link
from vdsgen.planner.search import Candidate
from vdsgen.planner.words import percent, seconds
from vdsgen.planner.workload import Workload
from vdsgen.spec.lab import Pool

LINKS: tuple[LinkKey, ...] = ("intra_node", "inter_node", "host_link")
TRAFFIC = {
    "tensor_seconds": "exchange between tensor ranks",
    "sequence_seconds": "exchange between sequence ranks",
    "transfer_seconds": "transfers between stages",
    "reduction_seconds": "gradient reduction",
    "gather_seconds": "parameter gathers",
    "offload_seconds": "offload traffic",
}
"""The parts of a step that are traffic, in words."""
LEAST_SECONDS = 1e-9
"""Less is rounding."""


class LinkLoad(NamedTuple):
    """What one link does in a step."""

    link: LinkKey
    seconds: dict[str, float]
    """By the parts in TRAFFIC; those it has nothing to do with are left out. Of all links they add up to the
    parts: a part that several links hold up is shared by what each would save."""
    faster: Candidate
    """The same plan with this link twice as fast."""

    @property
    def total_seconds(self) -> float:
        return sum(self.seconds.values())


def link_loads(workload: Workload, winner: Candidate) -> list[LinkLoad]:
    """Of each link that the plan uses."""
    settings, partition, before = winner.settings, winner.placed.partition, winner.time.split()
    faster = {
        key: Candidate(winner.placed, with_faster_link(workload, key, 2.0).times.step(settings, partition))
        for key in LINKS
        if link_of(workload, key) is not None
    }
    saved: dict[LinkKey, dict[str, float]] = {}
    for key, candidate in faster.items():
        after = candidate.time.split()
        each = {part: getattr(before, part) - getattr(after, part) for part in TRAFFIC}
        saved[key] = {part: value for part, value in each.items() if value > LEAST_SECONDS}
    total = {part: sum(each.get(part, 0.0) for each in saved.values()) for part in TRAFFIC}
    return [
        LinkLoad(
            key,
            {part: getattr(before, part) * value / total[part] for part, value in saved[key].items()},
            candidate,
        )
        for key, candidate in faster.items()
        if saved[key]
    ]


def sent_bytes(workload: Workload, winner: Candidate) -> dict[str, float]:
    """Bytes that a GPU sends in a step, by the parts in TRAFFIC, offload aside: of the stage that sends most.

    A ring sends (n - 1) / n of the volume a pass (cost/communication.py). Parameters that ZeRO-3 keeps
    whole, because they are small, are counted as gathered.
    """
    settings, partition = winner.settings, winner.placed.partition
    ranks = settings.sequence_data_parallel_size
    ring = (ranks - 1) / ranks
    types = [workload.profile.layer_types[name] for name in workload.profile.layers]
    sent = {"reduction_seconds": 0.0, "gather_seconds": 0.0}
    for start, stop in pairwise(partition):
        parameters = sum(layer.parameters for layer in types[start:stop])
        trainable = sum(layer.trainable_parameters for layer in types[start:stop])
        traffic = step_traffic(settings, parameters, trainable, stop - start)
        reduced = traffic.reductions * traffic.reduce_passes * ring * traffic.reduce_bytes
        sent["reduction_seconds"] = max(sent["reduction_seconds"], reduced)
        gathered = traffic.gathers * ring * traffic.gather_bytes
        sent["gather_seconds"] = max(sent["gather_seconds"], gathered)
    if len(partition) > 2:
        sent["transfer_seconds"] = _transferred(workload, winner)
    return {part: volume for part, volume in sent.items() if volume > 0}


def _transferred(workload: Workload, winner: Candidate) -> float:
    """Activations forward and their gradients back, at the boundary with most; the mean over clip sizes."""
    settings, times = winner.settings, workload.times
    models = times.models if isinstance(times, MeanStepTimeModel) else [times]
    at = [boundary - 1 for boundary in winner.placed.partition[1:-1]]
    handed_on = [model.boundary_bytes(settings) for model in models]
    volumes = [max(layers[layer] for layer in at) for layers in handed_on]
    return 2 * settings.gradient_accumulation_steps * sum(volumes) / len(volumes)


def link_words(winner: Candidate, load: LinkLoad, volumes: dict[str, float], named: Pool) -> str:
    """A link's part in the step: seconds and bytes by traffic. `named` is the pool as its lab file has it."""
    link = getattr(named, load.link)
    name = link if isinstance(link, str) else load.link.replace("_", " ")
    parts = []
    for part, taken in load.seconds.items():
        volume = f", {volumes[part] / 1e9:.2f} GB a GPU" if part in volumes else ""
        parts.append(f"{TRAFFIC[part]} {seconds(taken)}{volume}")
    share = percent(load.total_seconds / winner.time.step_seconds)
    return f"{name} takes {share} of the step: {'; '.join(parts)}"
