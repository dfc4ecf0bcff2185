"""What a plan expects of each of its hosts. Pure, of what launching has read already."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from vdsgen.catalog.hardware import resolve_link
from vdsgen.catalog.load import gpus
from vdsgen.launch.commands import Job
from vdsgen.spec.calibration import Calibration, middle
from vdsgen.spec.checkpoint_size import checkpoint_bytes, checkpoints_at_once
from vdsgen.spec.data import Autoencoder
from vdsgen.spec.diffusers_model import DiffusersModel
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.lab import Gpu, NodeGroup
from vdsgen.spec.plan import Plan, Stage
from vdsgen.spec.rendered import Rendered

GB = 1e9
VALUE_BYTES, CHANNELS = 4, 3
"""Of a pixel on its way from a loader process: fp32, three colours."""


@dataclass(frozen=True, slots=True)
class PlannedRank:
    """A rank, the device that it is to have, and the part of the model on it."""

    rank: int
    device: int | None
    """As nvidia-smi counts; None: it shares a processor."""
    product: str | None
    """The vendor's name of the GPU; None where the lab file gives figures only."""
    stage: Stage
    copied_bytes: int = 0
    """What asynchronous saving keeps of it in host memory."""

    @property
    def device_bytes(self) -> int:
        """What the plan takes of its device, the reserve aside."""
        return self.stage.memory.peak_bytes - self.stage.memory.reserve_bytes


@dataclass(frozen=True, slots=True)
class PlannedHost:
    """A host of the job."""

    name: str
    ranks: tuple[PlannedRank, ...]
    reads_clips: bool
    """Whether one of its ranks does: only a pipeline's first and last stage do."""
    cores: int | None
    """That the lab file gives a node; None: it does not say."""
    memory_bytes: int
    """Of a node, as the lab file says."""
    loader_bytes: int
    """At most what loader processes have on its way to their ranks in shared memory at once."""
    intra_bytes_per_second: float
    """That the plan counts on between two of its GPUs, each way."""
    inter_bytes_per_second: float | None
    """The same to other hosts, over one network card; None where the lab file has no other hosts."""

    @property
    def first_rank(self) -> int:
        return self.ranks[0].rank


@dataclass(frozen=True, slots=True)
class Expected:
    """Everything that pre-flight compares hosts with."""

    hosts: tuple[PlannedHost, ...]
    on_cpu: bool
    directory: Path
    output: Path
    checkpoint_bytes: int
    checkpoints: int
    """That are still to be written before the first of them is deleted; 0: the run writes none."""
    nvme: str | None
    """Where offload goes on every host."""
    loader_processes: int
    """Of one rank."""

    @property
    def world_size(self) -> int:
        return sum(len(host.ranks) for host in self.hosts)

    @property
    def disk_bytes(self) -> int:
        return self.checkpoints * self.checkpoint_bytes

    @property
    def ranks(self) -> tuple[PlannedRank, ...]:
        return tuple(rank for host in self.hosts for rank in host.ranks)


def expected_of(rendered: Rendered, job: Job, here: str, *, complete_checkpoints: int = 0) -> Expected:
    """`here`: how this machine is called where the hostfile names no hosts. `complete_checkpoints`: those of
    an earlier start of this run, which are deleted as new ones come."""
    plan, experiment = rendered.plan, rendered.experiment
    names = job.hosts[: job.nodes] or (here,)
    ends = list(accumulate(job.ranks_of_nodes))
    hosts = []
    for node, (name, end) in enumerate(zip(names, ends, strict=True)):
        group = group_of(plan, node)
        ranks = range(end - job.ranks_of_nodes[node], end)
        planned = tuple(_rank(rendered, job, group, node, rank, local) for local, rank in enumerate(ranks))
        reading = sum(rendered.layout.reads_clips(rank) for rank in ranks)
        assert group.host_memory_gib is not None
        hosts.append(
            PlannedHost(
                name=name,
                ranks=planned,
                reads_clips=reading > 0,
                cores=group.cpu_cores,
                memory_bytes=int(group.host_memory_gib * 2**30),
                loader_bytes=reading * _loader_bytes(experiment),
                intra_bytes_per_second=_intra_bytes_per_second(group),
                inter_bytes_per_second=None
                if group.inter_node is None
                else resolve_link(group.inter_node).bandwidth_gb_per_second * GB,
            )
        )
    written = checkpoints_at_once(experiment.training, plan.predicted.step_seconds)
    pool = plan.inputs.pool
    offloads = any(stage.nvme_bytes for stage in plan.stages)
    return Expected(
        hosts=tuple(hosts),
        on_cpu=job.on_cpu,
        directory=job.directory,
        output=job.output,
        checkpoint_bytes=checkpoint_bytes(plan),
        checkpoints=0 if job.measure else max(1, written - complete_checkpoints),
        nvme=pool.nvme.path if offloads and pool.nvme is not None else None,
        loader_processes=experiment.data.workers,
    )


def group_of(plan: Plan, node: int) -> NodeGroup:
    """The lab file's description of the plan's `node`; the last one's of nodes that a hostfile edited by hand
    has beyond the lab file's."""
    groups = [group for group in plan.inputs.pool.node_groups for _ in range(group.nodes)]
    return groups[min(plan.nodes[node].node if plan.nodes else node, len(groups) - 1)]


def _rank(rendered: Rendered, job: Job, group: NodeGroup, node: int, rank: int, local: int) -> PlannedRank:
    stage = rendered.plan.stages[min(rendered.layout.stage_of(rank), len(rendered.plan.stages) - 1)]
    saving = rendered.plan.saving
    copied = () if saving is None or job.measure else saving.copied_bytes_by_stage
    copy = copied[stage.index] if copied else 0
    if job.on_cpu:
        return PlannedRank(rank, None, None, stage, copy)
    devices = job.devices[node] if job.devices else group.devices
    device = devices[local] if local < len(devices) else local
    return PlannedRank(rank, device, product_of(group, device), stage, copy)


def product_of(group: NodeGroup, device: int) -> str | None:
    """The vendor's name of a GPU; None where the lab file gives figures only, or has no such GPU."""
    several = dict(enumerate(group.gpus or ()))
    kind: str | Gpu | None = several.get(device) if several else group.gpu
    entry = gpus().get(kind) if isinstance(kind, str) else None
    return None if entry is None else entry.product


def _loader_bytes(experiment: Experiment) -> int:
    """Of one rank that reads clips."""
    data = experiment.data
    if data.cache is not None:
        # Cached samples are read by threads.
        return 0
    largest = max(size.frames * size.height * size.width for size in data.sizes)
    return data.workers * data.prefetch * largest * CHANNELS * VALUE_BYTES


def inputs_of(experiment: Experiment, *, reads_clips: bool) -> dict[str, str]:
    """Keys of train.yaml that name something which a host's ranks read, and the path there."""
    return dict([*(_clip_inputs(experiment) if reads_clips else ()), *_weight_inputs(experiment)])


def _clip_inputs(experiment: Experiment) -> Iterator[tuple[str, str]]:
    data = experiment.data
    yield "data.videos", data.videos
    if isinstance(data.latents, Autoencoder):
        yield "data.latents.path", data.latents.path
    if data.text_encoder is not None:
        yield "data.text_encoder.path", data.text_encoder.path
    if data.pipeline is not None:
        yield "data.pipeline", data.pipeline
    validation = experiment.training.validation
    if validation is not None and validation.videos is not None:
        yield "training.validation.videos", validation.videos


def _weight_inputs(experiment: Experiment) -> Iterator[tuple[str, str]]:
    if isinstance(experiment.model, DiffusersModel) and experiment.model.weights is not None:
        yield "model.weights", experiment.model.weights
    if experiment.training.start_from is not None:
        yield "training.start_from", experiment.training.start_from


def _intra_bytes_per_second(group: NodeGroup) -> float:
    """The link inside a node: as it was calibrated, else as the lab file says."""
    if isinstance(group.calibration, Calibration):
        measured = group.calibration.link_bandwidth_gb_per_second
        if measured is not None:
            return middle(measured) * GB
    assert group.intra_node is not None
    return resolve_link(group.intra_node).bandwidth_gb_per_second * GB
