"""The lab: its pools of GPUs, the links between them, and their hosts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from vdsgen.spec.base import (
    CatalogName,
    Fraction,
    HostName,
    Name,
    NonNegativeFloat,
    NonNegativeInt,
    PathText,
    PositiveFloat,
    PositiveGib,
    PositiveInt,
    Spec,
    SpecError,
    SpecWithOptions,
)
from vdsgen.spec.calibration import Calibration
from vdsgen.spec.failures import CheckpointStorage, Failures
from vdsgen.spec.launching import Kubernetes, Launcher, Restarts, Slurm


class Gpu(SpecWithOptions):
    """What one accelerator can do. Rates are dense (no sparsity), in units of 1e12 FLOP a second."""

    written_where_set: ClassVar[frozenset[str]] = frozenset({"int8_tflops", "fp8_format"})

    memory_gib: PositiveGib | None = None
    """Memory of one device, GiB. None: the ranks share the host's memory (a processor)."""
    fp32_tflops: PositiveFloat
    fp16_tflops: PositiveFloat | None = None
    """Matrix rate in fp16 with fp32 accumulation. None: not supported."""
    bf16_tflops: PositiveFloat | None = None
    fp8_tflops: PositiveFloat | None = None
    fp8_format: Literal["ocp", "fnuz"] = "ocp"
    """ocp: e4m3 and e5m2 as NVIDIA has them. fnuz: those of AMD's MI300, which linear layers of this project
    do not compute in."""
    int8_tflops: PositiveFloat | None = None
    """Matrix rate in int8 with int32 sums. None: not supported."""
    memory_bandwidth_gb_per_second: PositiveFloat
    multiprocessors: PositiveInt | None = None
    """Streaming multiprocessors or compute units: a wave of tiles. None: no wave is ever half empty."""
    special_function_tera_per_second: PositiveFloat | None = None
    """Exponentials, 1e12 a second: what attention's softmax waits for. None: softmax costs nothing."""
    training_fraction: Fraction = 1.0
    """Share of the rates of kernels run alone that it keeps through a training step, when power is short."""
    warp_matrix_fraction: Fraction = 1.0
    """Share of the matrix rate that warp-level instructions (mma.sync) reach, which attention kernels use."""


class Link(Spec):
    """A link as one GPU sees it: one direction, 1e9 bytes a second."""

    bandwidth_gb_per_second: PositiveFloat
    latency_microseconds: NonNegativeFloat


class Nvme(Spec):
    """Local flash of one node."""

    path: PathText
    capacity_gib: PositiveGib
    read_gb_per_second: PositiveFloat
    write_gb_per_second: PositiveFloat


CPU = "cpu"
"""The catalogue's name for a processor."""
MOST_DEVICES = 1024
"""GPUs of one node that may be named one by one."""
MOST_GROUPS = 64
"""Groups of one pool."""


class NodeGroup(Spec):
    """Nodes of a pool that are alike. What is left out is as the pool says."""

    nodes: PositiveInt = 1
    gpu: CatalogName | Gpu | None = None
    gpus: tuple[CatalogName | Gpu, ...] | None = Field(default=None, min_length=1, max_length=MOST_DEVICES)
    """GPUs of several kinds in one node, by device number; instead of gpu and gpus_per_node."""
    gpus_per_node: PositiveInt | None = None
    free_gpus: tuple[NonNegativeInt, ...] | None = Field(default=None, min_length=1, max_length=MOST_DEVICES)
    """Device numbers that a job may use."""
    hosts: tuple[HostName, ...] | None = None
    """Names that ssh reaches, one a node."""
    intra_node: CatalogName | Link | None = None
    inter_node: CatalogName | Link | None = None
    """From one of these nodes to the others; what goes to another node takes both nodes' links."""
    network_cards: PositiveInt | None = None
    host_link: CatalogName | Link | None = None
    gpus_per_host_link: PositiveInt | None = None
    host_memory_gib: PositiveGib | None = None
    host_memory_bandwidth_gb_per_second: PositiveFloat | None = None
    cpu_cores: PositiveInt | None = None
    price_per_gpu_hour: PositiveFloat | None = None
    calibration: PathText | Calibration | None = None
    """What `vdsgen calibrate` measured on one of these nodes."""

    @property
    def devices(self) -> tuple[int, ...]:
        """Device numbers that a job may use, rising. Of a group that `Pool.node_groups` made."""
        assert self.gpus_per_node is not None
        return tuple(range(self.gpus_per_node)) if self.free_gpus is None else tuple(sorted(self.free_gpus))

    @property
    def gpus_in_use(self) -> int:
        """Of one node."""
        return len(self.devices)

    @property
    def kinds(self) -> tuple[str | Gpu, ...]:
        """The GPU of each of `devices`. Of a group that `Pool.node_groups` made."""
        if self.gpus is not None:
            return tuple(self.gpus[device] for device in self.devices)
        assert self.gpu is not None
        return (self.gpu,) * len(self.devices)

    @property
    def world_size(self) -> int:
        return self.nodes * self.gpus_in_use


class Pool(SpecWithOptions):
    """GPUs that a job may use together: nodes that are all alike, or groups of unequal ones."""

    written_where_set = frozenset(
        {"launcher", "slurm", "kubernetes", "restarts", "hang_seconds", "failures", "checkpoint_storage"}
    )

    name: Name
    gpu: CatalogName | Gpu | None = None
    """A name from `vdsgen catalog gpus`, or the figures themselves."""
    gpus: tuple[CatalogName | Gpu, ...] | None = Field(default=None, min_length=1, max_length=MOST_DEVICES)
    """GPUs of several kinds in one node, by device number (as nvidia-smi counts); instead of gpu and
    gpus_per_node."""
    nodes: PositiveInt = 1
    gpus_per_node: PositiveInt = 1
    """GPUs of one node, also those that are not free."""
    free_gpus: tuple[NonNegativeInt, ...] | None = Field(default=None, min_length=1, max_length=MOST_DEVICES)
    """Device numbers that a job may use in each node; None: all."""
    groups: tuple[NodeGroup, ...] | None = Field(default=None, min_length=1, max_length=MOST_GROUPS)
    """Nodes that differ: each group says what is different from the pool's own keys."""
    intra_node: CatalogName | Link
    """The link between GPUs of one node."""
    inter_node: CatalogName | Link | None = None
    """The link between nodes; needed when there is more than one."""
    network_cards: PositiveInt = 1
    """Links of `inter_node` that one node has; rings spread over them, a flow has one."""
    host_link: CatalogName | Link | None = None
    """Between one GPU and its host; None: the widest PCIe that the GPU has."""
    gpus_per_host_link: PositiveInt = 1
    """GPUs behind one PCIe switch: they share its link to the host."""
    host_memory_gib: PositiveGib
    """Memory of one node, GiB."""
    host_memory_bandwidth_gb_per_second: PositiveFloat | None = None
    """What one node's memory sustains; default in the cost model."""
    memory_reserve_fraction: Fraction | None = None
    """Part of each GPU's memory that the plan must leave free; default in the planner."""
    cpu_cores: PositiveInt | None = None
    price_per_gpu_hour: PositiveFloat | None = None
    """In any currency, the same in all pools: what `objective: cost` compares pools by."""
    nvme: Nvme | None = None
    hosts: tuple[HostName, ...] | None = None
    """Names that ssh reaches, one a node; go into the hostfile."""
    calibration: PathText | Calibration | None = None
    """What `vdsgen calibrate` measured: its file (relative paths start at the lab file), or the figures."""
    failures: Failures | None = None
    """How often jobs fail here; None: not known."""
    checkpoint_storage: CheckpointStorage | None = None
    """How fast checkpoints are written here; None: as the calibration says, if it does."""
    launcher: Launcher | None = None
    """What starts its jobs, unless `vdsgen launch --launcher` says otherwise; None: deepspeed's runner.
    `slurm` renders a batch script too, `kubernetes` a PyTorchJob."""
    slurm: Slurm | None = None
    """What such a batch script says beyond the plan."""
    kubernetes: Kubernetes | None = None
    """What such a PyTorchJob says beyond the plan."""
    restarts: Restarts | None = None
    """What becomes of runs that fail, unless `vdsgen launch --restarts` says otherwise; None: they end.
    Schedulers start jobs again themselves."""
    hang_seconds: NonNegativeFloat | None = None
    """How long no rank may come on in a step before the run is taken to hang, unless `vdsgen launch
    --hang-seconds` says otherwise; 0: for ever. None: ten times as long as the longest, a minute at least."""

    @property
    def world_size(self) -> int:
        """GPUs that a job may use."""
        if self.groups is None:
            free = self.gpus_per_node if self.free_gpus is None else len(self.free_gpus)
            return self.nodes * free
        return sum(group.world_size for group in self.node_groups)

    @property
    def node_count(self) -> int:
        return self.nodes if self.groups is None else sum(group.nodes for group in self.groups)

    @property
    def is_plain(self) -> bool:
        """Whether all nodes are alike, their GPUs of one kind, and all of them free."""
        return self.groups is None and self.gpus is None and self.free_gpus is None

    @property
    def on_processors(self) -> bool:
        """Whether ranks run on processors: there are no devices to choose between."""
        kind = self.kinds[0]
        return kind.memory_gib is None if isinstance(kind, Gpu) else kind == CPU

    @property
    def kinds(self) -> list[str | Gpu]:
        """Each kind of free GPU once, in the order of the file."""
        return distinct(kind for group in self.node_groups for kind in distinct(group.kinds))

    @property
    def node_groups(self) -> tuple[NodeGroup, ...]:
        """The nodes in the order of the file, with everything that a group may say said."""
        if self.groups is None:
            return (self._filled(NodeGroup(nodes=self.nodes, hosts=self.hosts)),)
        return tuple(self._filled(group) for group in self.groups)

    def _filled(self, group: NodeGroup) -> NodeGroup:
        """Kinds of GPU go together: `gpu` of a group stands against `gpus` of the pool."""
        update = {
            key: getattr(self, key)
            for key in NodeGroup.model_fields
            if key not in _PLACES and getattr(group, key) is None
        }
        if group.gpu is not None:
            update.pop("gpus", None)
        if group.gpus is not None:
            update.pop("gpu", None)
        gpus = update.get("gpus", group.gpus)
        if gpus is not None:
            update["gpus_per_node"] = len(gpus)
        return group.model_copy(update=update)

    @model_validator(mode="after")
    def _gpus_are_counted(self) -> Self:
        if self.gpus is not None and "gpus_per_node" not in self.model_fields_set:
            object.__setattr__(self, "gpus_per_node", len(self.gpus))  # as if it were written
        _check_kinds("", self.gpu, self.gpus, self.gpus_per_node)
        named = self.gpu is not None or self.gpus is not None
        counted = self.gpus is not None or "gpus_per_node" in self.model_fields_set
        for under, group in self._written_groups():
            _check_kinds(under, group.gpu, group.gpus, group.gpus_per_node)
            if not named and group.gpu is None and group.gpus is None:
                raise SpecError(
                    f"{under}gpu",
                    "is missing; expected a GPU of the catalogue, or its figures",
                    remedy="see `vdsgen catalog gpus`; several kinds in one node: gpus: [NAME, NAME, ...]",
                )
            if not counted and group.gpus is None and group.gpus_per_node is None:
                raise SpecError(
                    f"{under}gpus_per_node",
                    "is missing; expected a whole number above zero",
                    remedy="say how many GPUs one node has",
                )
            _check_devices(under, self._filled(group))
        return self

    @model_validator(mode="after")
    def _nodes_agree(self) -> Self:
        nodes = self.node_count
        for under, group in self._written_groups():
            if nodes > 1 and self.inter_node is None and group.inter_node is None:
                raise SpecError(
                    f"{under}inter_node",
                    f"is missing; a pool of {nodes} nodes needs the link between them",
                    remedy="see `vdsgen catalog links`",
                )
        for key in ("nodes", "hosts"):
            if self.groups is not None and getattr(self, key) not in (1, None):
                raise SpecError(key, f"{key} stands beside groups", remedy=f"say {key} in each group")
        return self

    @model_validator(mode="after")
    def _hosts_are_named_once(self) -> Self:
        named = [group.hosts for group in self.node_groups]
        seen: set[str] = set()
        for (under, _), group in zip(self._written_groups(), self.node_groups, strict=True):
            key = f"{under}hosts"
            if group.hosts is None:
                if any(named):
                    raise SpecError(
                        key, "is missing; other groups name their hosts", remedy="name all or none"
                    )
                continue
            if len(group.hosts) != group.nodes:
                raise SpecError(key, f"hosts names {len(group.hosts)} hosts, nodes says {group.nodes}")
            if len(set(group.hosts)) != len(group.hosts):
                raise SpecError(key, "hosts names a host twice")
            if seen & set(group.hosts):
                raise SpecError(key, f"{min(seen & set(group.hosts))} is in another group too")
            seen |= set(group.hosts)
        return self

    @model_validator(mode="after")
    def _calibration_is_of_one_kind(self) -> Self:
        checked = [(under, group, self._filled(group).kinds) for under, group in self._written_groups()]
        every = [kind for _, _, kinds in checked for kind in kinds]
        for key, measured, kinds in (
            ("calibration", self.calibration, every),
            *((f"{under}calibration", group.calibration, kinds) for under, group, kinds in checked),
        ):
            if measured is not None and len(distinct(kinds)) > 1:
                raise SpecError(
                    key,
                    "was measured on one kind of GPU, and there are several here",
                    remedy="put it into the group whose GPUs it was measured on, or leave it out",
                )
        return self

    @model_validator(mode="after")
    def _schedulers_choose_nodes(self) -> Self:
        for scheduler in ("slurm", "kubernetes"):
            if self.launcher != scheduler and getattr(self, scheduler) is not None:
                raise SpecError(
                    scheduler,
                    f"stands without `launcher: {scheduler}`",
                    remedy=f"add it, or leave {scheduler} out",
                )
        if self.launcher == "kubernetes" and self.kubernetes is None:
            raise SpecError(
                "kubernetes",
                "is missing; `launcher: kubernetes` needs it",
                remedy="say image, claims, directory and output in it",
            )
        if self.launcher not in ("slurm", "kubernetes"):
            return self
        for key in ("restarts", "hang_seconds"):
            if getattr(self, key) is not None:
                raise SpecError(
                    key,
                    f"{key} stands beside `launcher: {self.launcher}`, which starts its jobs itself",
                    remedy="leave it out: rendered jobs of schedulers say how they are started again",
                )
        named = [key for key in ("groups", "gpus", "free_gpus", "hosts") if getattr(self, key) is not None]
        if named:
            raise SpecError(
                named[0],
                f"{named[0]} stands beside `launcher: {self.launcher}`, which chooses nodes and GPUs itself",
                remedy="leave it out; a pool of a scheduler is of nodes that are all alike",
            )
        return self

    def _written_groups(self) -> list[tuple[str, NodeGroup]]:
        """What starts a group's keys, and the group as it is written; a pool without groups is one."""
        if self.groups is None:
            return [("", NodeGroup(nodes=self.nodes, hosts=self.hosts))]
        return [(f"groups[{index}].", group) for index, group in enumerate(self.groups)]


_PLACES = frozenset({"nodes", "hosts"})
"""Keys of a group that no pool stands in for."""


def _check_kinds(under: str, gpu: object, gpus: tuple[object, ...] | None, gpus_per_node: int | None) -> None:
    """Raises SpecError where a list of GPUs stands beside another description."""
    if gpus is None:
        return
    if gpu is not None:
        raise SpecError(f"{under}gpus", "gpu and gpus are both given", remedy="leave one of them out")
    if gpus_per_node not in (None, len(gpus)):
        raise SpecError(
            f"{under}gpus_per_node", f"gpus names {len(gpus)} GPUs, gpus_per_node says {gpus_per_node}"
        )


def _check_devices(under: str, group: NodeGroup) -> None:
    """Raises SpecError where free GPUs are not the node's."""
    free, there = group.free_gpus, group.gpus_per_node
    assert there is not None
    if free is None:
        return
    if len(set(free)) != len(free):
        raise SpecError(f"{under}free_gpus", f"names a GPU twice ({', '.join(map(str, free))})")
    if max(free) >= there:
        raise SpecError(
            f"{under}free_gpus",
            f"names GPU {max(free)}, a node has {there}",
            remedy=f"GPUs are numbered 0 to {there - 1}, as nvidia-smi does",
        )


def distinct(kinds: Iterable[str | Gpu]) -> list[str | Gpu]:
    """Each kind once, in order."""
    found: list[str | Gpu] = []
    for kind in kinds:
        if kind not in found:
            found.append(kind)
    return found


class Lab(Spec):
    """`lab.yaml`"""

    pools: tuple[Pool, ...] = Field(min_length=1, max_length=256)

    @model_validator(mode="after")
    def _pool_names_differ(self) -> Self:
        first: dict[str, int] = {}
        for index, pool in enumerate(self.pools):
            if pool.name in first:
                other = f"pools[{first[pool.name]}]"
                raise SpecError(
                    f"pools[{index}].name", f"two pools are named {pool.name!r}: {other} and this"
                )
            first[pool.name] = index
        return self
