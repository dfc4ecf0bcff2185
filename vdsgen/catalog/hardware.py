"""GPUs and links of a pool: names become figures, and impossible pairs are refused."""

from __future__ import annotations

from vdsgen.catalog.entries import CatalogGpu, CatalogLink
from vdsgen.catalog.load import gpus, links
from vdsgen.catalog.names import unknown_name
from vdsgen.errors import InputError, Problem
from vdsgen.spec.lab import Gpu, Lab, Link, Pool

_GPU_FIGURES = "`vdsgen catalog gpus` lists all; figures may also be given: gpu: {memory_gib: ..., ...}"
_LINK_FIGURES = (
    "`vdsgen catalog links` lists all; figures may also be given: "
    "{bandwidth_gb_per_second: ..., latency_microseconds: ...}"
)


def resolve_gpu(gpu: str | Gpu, *, key: str = "gpu") -> Gpu:
    """The figures of a GPU. Raises InputError where the catalogue has no such name."""
    return _gpu_entry(gpu, key).figures if isinstance(gpu, str) else gpu


def resolve_link(link: str | Link, *, key: str = "link") -> Link:
    """The figures of a link. Raises InputError where the catalogue has no such name."""
    return _link_entry(link, key).figures if isinstance(link, str) else link


def resolve_host_link(pool: Pool) -> Link | None:
    """The link between a GPU and its host: what the pool says, else the GPU's own PCIe; None: not known."""
    if pool.host_link is not None:
        return resolve_link(pool.host_link, key="host_link")
    if isinstance(pool.gpu, str):
        for name in _gpu_entry(pool.gpu, "gpu").links:
            if links()[name].kind == "pcie":
                return links()[name].figures
    return None


def lab_problems(lab: Lab) -> list[Problem]:
    """Names in the lab that the catalogue does not hold, and links that its GPUs cannot have."""
    return [
        problem for index, pool in enumerate(lab.pools) for problem in pool_problems(pool, f"pools[{index}].")
    ]


def pool_problems(pool: Pool, under: str = "") -> list[Problem]:
    """As `lab_problems`, for one pool; `under` starts the keys."""
    problems: list[Problem] = []
    gpu = link = None
    try:
        gpu = _gpu_entry(pool.gpu, f"{under}gpu") if isinstance(pool.gpu, str) else None
    except InputError as error:
        problems += error.problems
    for key, value in (
        ("intra_node", pool.intra_node),
        ("inter_node", pool.inter_node),
        ("host_link", pool.host_link),
    ):
        try:
            entry = _link_entry(value, f"{under}{key}") if isinstance(value, str) else None
            link = entry if key == "intra_node" else link
        except InputError as error:
            problems += error.problems
    if isinstance(pool.intra_node, str) and link is not None:
        mismatch = _mismatch(pool, gpu, link)
        if mismatch:
            problems.append(Problem(mismatch[0], key=f"{under}intra_node", remedy=mismatch[1]))
    return problems


def _mismatch(pool: Pool, gpu: CatalogGpu | None, link: CatalogLink) -> tuple[str, str] | None:
    """Why this pool's GPUs cannot have this link inside a node, and what to write."""
    if gpu is not None:
        own = [name for name in gpu.links if links()[name].kind == link.kind]
        widest = max((links()[name].bandwidth_gb_per_second for name in own), default=0.0)
        has_it = bool(own) if link.kind == "pcie" else pool.intra_node in own
        if link.kind in ("pcie", "nvlink", "xgmi") and not has_it:
            return f"{pool.gpu} has no {pool.intra_node}", f"it has {' and '.join(gpu.links)}"
        if link.kind == "pcie" and link.bandwidth_gb_per_second > widest:
            return f"{pool.gpu} is no faster than {own[0]}, {pool.intra_node} is", f"write {own[0]}"
    if link.joins is not None and pool.gpus_per_node > link.joins:
        remedy = "write the link that the others go over (its PCIe), which is the slowest hop"
        return f"{pool.intra_node} joins {link.joins} GPUs, gpus_per_node is {pool.gpus_per_node}", remedy
    return None


def _gpu_entry(name: str, key: str) -> CatalogGpu:
    if name not in gpus():
        known = {entry: gpu.product for entry, gpu in gpus().items()}
        raise unknown_name("GPU", name, known, key=key, otherwise=_GPU_FIGURES)
    return gpus()[name]


def _link_entry(name: str, key: str) -> CatalogLink:
    if name not in links():
        known = {
            entry: entry.replace("ethernet-", "") + "bE" * (link.kind == "ethernet")
            for entry, link in links().items()
        }
        raise unknown_name("link", name, known, key=key, otherwise=_LINK_FIGURES)
    return links()[name]
