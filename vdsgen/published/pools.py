"""A row's GPUs and the nodes they are in, as a pool that tensor-parallel groups are the ranks of."""

from __future__ import annotations

import re
from typing import NamedTuple

from vdsgen.published.reasons import CannotExpressError
from vdsgen.published.row import Row
from vdsgen.spec.lab import Link, Pool

NODE_GPUS = 8
"""GPUs of an HGX or DGX board, which every cluster here has unless its source says otherwise."""


class Machine(NamedTuple):
    """A GPU as sources name it: its catalogue entry, and the links of the usual node."""

    pattern: str
    gpu: str
    intra_node: str
    inter_node: str
    ports: int
    """Of one node."""


MACHINES = (
    Machine(r"v100.*16", "v100-16gb-sxm2", "nvlink-2", "infiniband-edr", 4),
    Machine(r"v100", "v100-32gb-sxm2", "nvlink-2", "infiniband-edr", 4),
    Machine(r"a100.*40", "a100-40gb-sxm", "nvlink-3", "infiniband-hdr", 8),
    Machine(r"a100|a800", "a100-80gb-sxm", "nvlink-3", "infiniband-hdr", 8),
    Machine(r"h100.*nvl", "h100-94gb-nvl", "nvlink-bridge-h100", "infiniband-ndr", 8),
    Machine(r"h100|h800", "h100-80gb-sxm", "nvlink-4", "infiniband-ndr", 8),
    Machine(r"h200", "h200-141gb-sxm", "nvlink-4", "infiniband-ndr", 8),
    Machine(r"\bb200", "b200-180gb-sxm", "nvlink-5", "infiniband-ndr", 8),
    Machine(r"l40s", "l40s", "pcie-4.0-x16", "ethernet-100g", 1),
    Machine(r"5090", "rtx-5090", "pcie-5.0-x16", "ethernet-100g", 1),
    Machine(r"4090", "rtx-4090", "pcie-4.0-x16", "ethernet-100g", 1),
    Machine(r"4080", "rtx-4080", "pcie-4.0-x16", "ethernet-100g", 1),
    Machine(r"3090", "rtx-3090", "pcie-4.0-x16", "ethernet-100g", 1),
)
"""First match counts. Nodes: DGX-1V, DGX A100, DGX H100 and DGX B200 user guides (one 100, 200, 400 and 400
Gb/s port for one or two GPUs); A800 and H800 have slower NVLink and the same arithmetic."""

OMNI_PATH_PORTS = 4
"""Of a node of Jean Zay, 100 Gb/s each, where bigscience's runs were: four V100 or eight A100
(bigscience, README and train/tr11-176B-ml/README.md)."""


class Hardware(NamedTuple):
    """A row's pool. One 'GPU' of it is one tensor-parallel group where groups are larger than one."""

    pool: Pool
    tensor_link: Link
    """Between the GPUs of a node."""
    host_bytes_per_second: float
    """Over the GPU's own PCIe."""


def _machine(name: str) -> Machine | None:
    return next((one for one in MACHINES if re.search(one.pattern, name)), None)


def memory_gib(gpu_type: str) -> float | None:
    """Of one GPU; None for one that is not in the catalogue."""
    from vdsgen.catalog.load import gpus

    machine = _machine(gpu_type.lower())
    return None if machine is None else gpus()[machine.gpu].memory_gib


def hardware_of(row: Row, ranks: int, tensor_parallel: int) -> Hardware:
    """The pool of `ranks` tensor-parallel groups. Raises CannotExpressError for GPUs the catalogue has not.

    A node's ports are shared by the members of its groups, each of which sends its own share of what the
    planner takes for one rank's bytes.
    """
    from vdsgen.catalog.load import gpus, links

    name = row.gpu_type.lower()
    machine = _machine(name)
    if machine is None:
        raise CannotExpressError(f"no GPU like {row.gpu_type!r} in the catalogue" if name else "no gpu_type")
    per_node, ports = NODE_GPUS, machine.ports
    inter = links()[machine.inter_node]
    if "jean zay" in row.notes.lower() or "bigscience" in row.source.lower():
        per_node, ports = (4 if "v100" in name else NODE_GPUS), OMNI_PATH_PORTS
        inter = links()["infiniband-edr"]
    groups = max(1, per_node // tensor_parallel)
    nodes = -(-ranks // groups)
    entry = gpus()[machine.gpu]
    intra = links()[machine.intra_node].figures
    pool = Pool(
        name="published",
        gpu=entry.figures,
        nodes=nodes,
        gpus_per_node=min(ranks, groups),
        intra_node=intra,
        inter_node=inter.figures,
        network_cards=max(1, ports // min(tensor_parallel, per_node)),
        host_memory_gib=1024,
    )
    host = max(links()[name].bandwidth_gb_per_second for name in entry.links if name.startswith("pcie"))
    return Hardware(pool, intra, host * 1e9)
