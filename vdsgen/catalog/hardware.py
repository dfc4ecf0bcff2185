"""GPUs and links of a pool: names become figures, and impossible pairs are refused."""

from __future__ import annotations

from collections.abc import Iterator

from vdsgen.catalog.entries import CatalogGpu, CatalogLink
from vdsgen.catalog.load import gpus, links
from vdsgen.catalog.names import unknown_name
from vdsgen.errors import InputError, Problem
from vdsgen.spec.lab import Gpu, Lab, Link, NodeGroup, Pool, distinct

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


def resolve_host_link(host_link: str | Link | None, gpu: str | Gpu) -> Link | None:
    """The link between a GPU and its host: what the lab says, else the GPU's own PCIe; None: not known."""
    if host_link is not None:
        return resolve_link(host_link, key="host_link")
    if isinstance(gpu, str):
        for name in _gpu_entry(gpu, "gpu").links:
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
    problems = list(_unknown_names(pool, under))
    for index, group in enumerate(pool.groups or ()):
        problems += _unknown_names(group, f"{under}groups[{index}].")
    if problems:
        return problems
    for index, group in enumerate(pool.node_groups):
        written = pool.groups is not None and pool.groups[index].intra_node is not None
        key = f"{under}groups[{index}].intra_node" if written else f"{under}intra_node"
        problems += [problem for problem in _mismatches(group, key) if problem not in problems]
    processors = [kind for kind in pool.kinds if resolve_gpu(kind).memory_gib is None]
    if processors and len(processors) < len(pool.kinds):
        problems.append(
            Problem(
                "processors and GPUs are in one pool: their ranks cannot train together",
                key=f"{under}name",
                remedy="make two pools of them",
            )
        )
    return problems


def _unknown_names(written: Pool | NodeGroup, under: str) -> Iterator[Problem]:
    """GPUs and links that the catalogue does not hold."""
    kinds = [("gpu", written.gpu), *((f"gpus[{at}]", gpu) for at, gpu in enumerate(written.gpus or ()))]
    for key, gpu in kinds:
        try:
            if isinstance(gpu, str):
                _gpu_entry(gpu, f"{under}{key}")
        except InputError as error:
            yield from error.problems
    for key in ("intra_node", "inter_node", "host_link"):
        link = getattr(written, key)
        try:
            if isinstance(link, str):
                _link_entry(link, f"{under}{key}")
        except InputError as error:
            yield from error.problems


def _mismatches(group: NodeGroup, key: str) -> Iterator[Problem]:
    """GPUs that cannot have the link that the group has inside its nodes."""
    if not isinstance(group.intra_node, str):
        return
    link = _link_entry(group.intra_node, key)
    assert group.gpus_per_node is not None
    for kind in distinct(group.gpus or (group.kinds[0],)):
        mismatch = _mismatch(kind, group.intra_node, link) or _too_many(group, link)
        if mismatch:
            yield Problem(mismatch[0], key=key, remedy=mismatch[1])


def _mismatch(kind: str | Gpu, intra_node: str, link: CatalogLink) -> tuple[str, str] | None:
    """Why this GPU cannot have this link inside a node, and what to write."""
    if not isinstance(kind, str):
        return None
    gpu = _gpu_entry(kind, "gpu")
    own = [name for name in gpu.links if links()[name].kind == link.kind]
    widest = max((links()[name].bandwidth_gb_per_second for name in own), default=0.0)
    has_it = bool(own) if link.kind == "pcie" else intra_node in own
    if link.kind in ("pcie", "nvlink", "xgmi") and not has_it:
        return f"{kind} has no {intra_node}", f"it has {' and '.join(gpu.links)}"
    if link.kind == "pcie" and link.bandwidth_gb_per_second > widest:
        return f"{kind} is no faster than {own[0]}, {intra_node} is", f"write {own[0]}"
    return None


def _too_many(group: NodeGroup, link: CatalogLink) -> tuple[str, str] | None:
    """A bridge that joins fewer GPUs than a node has."""
    assert group.gpus_per_node is not None
    if link.joins is None or group.gpus_per_node <= link.joins:
        return None
    remedy = "write the link that the others go over (its PCIe), which is the slowest hop"
    return (
        f"{group.intra_node} joins {link.joins} GPUs, gpus_per_node is {group.gpus_per_node}",
        remedy,
    )


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
