"""The lab: its pools of GPUs, the links between them, and their hosts."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from vdsgen.spec.base import (
    CatalogName,
    Fraction,
    HostName,
    Name,
    NonNegativeFloat,
    PathText,
    PositiveFloat,
    PositiveInt,
    Spec,
    SpecError,
)
from vdsgen.spec.calibration import Calibration


class Gpu(Spec):
    """What one accelerator can do. Rates are dense (no sparsity), in units of 1e12 FLOP a second."""

    memory_gib: PositiveFloat | None = None
    """Memory of one device, GiB. None: the ranks share the host's memory (a processor)."""
    fp32_tflops: PositiveFloat
    fp16_tflops: PositiveFloat | None = None
    """Matrix rate in fp16 with fp32 accumulation. None: not supported."""
    bf16_tflops: PositiveFloat | None = None
    fp8_tflops: PositiveFloat | None = None
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
    capacity_gib: PositiveFloat
    read_gb_per_second: PositiveFloat
    write_gb_per_second: PositiveFloat


class Pool(Spec):
    """GPUs of one kind that a job may use together."""

    name: Name
    gpu: CatalogName | Gpu
    """A name from `vdsgen catalog gpus`, or the figures themselves."""
    nodes: PositiveInt = 1
    gpus_per_node: PositiveInt
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
    host_memory_gib: PositiveFloat
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

    @property
    def world_size(self) -> int:
        return self.nodes * self.gpus_per_node

    @model_validator(mode="after")
    def _nodes_agree(self) -> Self:
        if self.nodes > 1 and self.inter_node is None:
            raise SpecError(
                "inter_node",
                f"is missing; a pool of {self.nodes} nodes needs the link between them",
                remedy="see `vdsgen catalog links`",
            )
        if self.hosts is not None and len(self.hosts) != self.nodes:
            raise SpecError("hosts", f"hosts names {len(self.hosts)} hosts, nodes says {self.nodes}")
        if self.hosts is not None and len(set(self.hosts)) != len(self.hosts):
            raise SpecError("hosts", "hosts names a host twice")
        return self


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
