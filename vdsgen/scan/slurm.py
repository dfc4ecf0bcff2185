"""SLURM's partitions with GPUs as pools."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from vdsgen.catalog.load import gpus, links
from vdsgen.errors import VdsgenError
from vdsgen.scan import probe
from vdsgen.scan.gpu_names import meant_by
from vdsgen.scan.network import link_of_rate
from vdsgen.scan.pools import PoolText, ordered
from vdsgen.scan.said import Said
from vdsgen.spec.base import NAME_PATTERN

SINFO = ("sinfo", "--noheader", "--exact", "--format=%R|%a|%l|%s|%D|%T|%m|%z|%G|%f|%N")
"""Partition, availability, time limit, nodes of a job, nodes, their state, MB, sockets:cores:threads, GRES,
features, names: one line for nodes that are equal in all of these. Columns rather than `--json`, whose layout
differs from version to version, and which needs a plugin."""

SECONDS = 60
MOST_POOLS = 64

GONE = ("down", "drain", "fail", "maint", "unknown", "future", "power", "inval", "planned_down", "error")
"""Beginnings of the states of nodes that run nothing."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Nodes of a partition that are alike."""

    gpu_type: str
    """As GRES has it; empty: it names none."""
    gpus_per_node: int
    memory_mb: int
    cores: int
    features: frozenset[str]
    nodes: int
    gone: int
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Partition:
    name: str
    time_limit: str | None
    """As sbatch takes it; None: there is none."""
    most_nodes: int | None
    """Of one job; None: all."""
    kinds: tuple[Kind, ...]
    """Of its nodes with GPUs."""


def ask_slurm() -> str | None:
    """What sinfo prints; None where there is no SLURM, or one that no cluster is configured for. Raises
    VdsgenError where it does not answer."""
    if shutil.which(SINFO[0]) is None:
        return None
    try:
        done = subprocess.run(  # noqa: S603
            SINFO, capture_output=True, text=True, errors="replace", check=False, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        raise VdsgenError(f"sinfo did not answer within {SECONDS} s") from None
    if done.returncode:
        if "configuration source" in done.stderr:
            return None
        said = done.stderr.strip().splitlines() or ["it failed"]
        raise VdsgenError(f"SLURM does not answer here: {probe.printable(said[-1])}")
    return done.stdout


def partitions_of(text: str) -> list[Partition]:
    """Partitions of `SINFO`'s lines that are up and have GPUs, in their order; others say nothing here."""
    found: dict[str, dict[tuple[object, ...], list[tuple[int, bool, str]]]] = {}
    limits: dict[str, tuple[str | None, int | None]] = {}
    for line in text.splitlines():
        cells = line.strip().split("|")
        if len(cells) != 11 or cells[1] != "up" or not re.fullmatch(NAME_PATTERN, cells[0]):
            continue
        name, _, limit, sizes, count, state, memory, processors, gres, features = cells[:-1]
        names = probe.printable(cells[-1])
        gpu = _gpus(gres)
        if gpu is None or not count.isdigit() or not memory.rstrip("+").isdigit() or len(name) > 64:
            continue
        shape = re.match(r"(\d+):(\d+):(\d+)", processors)
        cores = int(shape.group(1)) * int(shape.group(2)) if shape else 0
        key = (*gpu, int(memory.rstrip("+")), cores, frozenset(_features(features)))
        gone = state.lower().startswith(GONE)
        found.setdefault(name, {}).setdefault(key, []).append((int(count), gone, names))
        most = re.search(r"(\d{1,6})$", sizes)
        limits[name] = (
            limit if re.fullmatch(r"([0-9]+-)?[0-9]+(:[0-9]{2}){0,2}", limit) else None,
            int(most.group(1)) if most else None,
        )
    return [
        Partition(name, *limits[name], tuple(_kind(key, seen) for key, seen in kinds.items()))
        for name, kinds in found.items()
    ]


def _kind(key: tuple[object, ...], seen: Sequence[tuple[int, bool, str]]) -> Kind:
    gpu_type, count, memory_mb, cores, features = key
    assert isinstance(gpu_type, str) and isinstance(count, int) and isinstance(features, frozenset)
    assert isinstance(memory_mb, int) and isinstance(cores, int)
    up = sum(nodes for nodes, gone, _ in seen if not gone)
    away = sum(nodes for nodes, gone, _ in seen if gone)
    return Kind(gpu_type, count, memory_mb, cores, features, up, away, tuple(names for *_, names in seen))


def _gpus(gres: str) -> tuple[str, int] | None:
    """`gpu:a100:4(S:0-1),nvme:3600`: a100, 4. Several types in one node count as no type."""
    found = re.findall(r"(?:^|,)gpu(?::([^:,()]+))?:(\d+)", re.sub(r"\(.*?\)", "", gres))
    count = sum(int(number) for _, number in found)
    types = {kind for kind, _ in found}
    if not found or not 0 < count <= 1024:
        return None
    return (probe.printable(types.pop()) if len(types) == 1 else "", count)


def _features(text: str) -> list[str]:
    return [word for word in text.split(",") if re.fullmatch(NAME_PATTERN, word) and len(word) <= 64]


def slurm_pools(
    partitions: Sequence[Partition], network: dict[str, Said]
) -> tuple[list[PoolText], list[str]]:
    """A pool for each kind of node of each partition, and what was left out and why. `network`: of the
    machine that asks, which is most likely in the same one."""
    pools: list[PoolText] = []
    left_out: list[str] = []
    for partition in partitions:
        for kind in partition.kinds:
            where = f"partition {partition.name}, {', '.join(kind.names)[:60]}"
            meant = meant_by(kind.gpu_type, kind.features) if kind.gpu_type else ()
            if not kind.nodes:
                left_out.append(f"{where}: all nodes are down or drained")
            elif not meant:
                called = f"`{kind.gpu_type}`" if kind.gpu_type else "no single type"
                left_out.append(f"{where}: GRES says {called} of GPU, which names none of the catalogue")
            elif len(pools) < MOST_POOLS:
                pools.append(_pool(partition, kind, meant, network))
            else:
                left_out.append(f"{where}: {MOST_POOLS} pools are enough")
    return _named_once(pools), left_out


def _pool(partition: Partition, kind: Kind, meant: Sequence[str], network: dict[str, Said]) -> PoolText:
    gpu = meant[0]
    others = [name for name in meant[1:] if name != gpu]
    comment = f"GRES says {kind.gpu_type}"
    if others:
        comment += f": the least that it can mean; else {', '.join(others)}"
    nvlink = [
        name
        for name in gpus()[gpu].links
        if links()[name].kind == "nvlink" and (links()[name].joins or 0) > 4
    ]
    pcie = next(name for name in gpus()[gpu].links if links()[name].kind == "pcie")
    intra = nvlink[0] if nvlink and kind.gpus_per_node > 1 else pcie
    keys = {
        "name": Said(partition.name if len(partition.kinds) == 1 else f"{partition.name}-{gpu}"[:64]),
        "gpu": Said(gpu, comment),
        "gpus_per_node": Said(kind.gpus_per_node),
        "intra_node": Said(intra, "the card's own: SLURM does not tell"),
        "host_memory_gib": _host_memory(kind.memory_mb),
        "launcher": Said("slurm"),
        "slurm": Said(_slurm(partition, kind)),
    }
    nodes = min(kind.nodes, partition.most_nodes or kind.nodes)
    if nodes > 1:
        comment = f"a job may have no more; there are {kind.nodes}" if nodes < kind.nodes else ""
        gone = f"{kind.gone} more are down or drained" if kind.gone else ""
        keys["nodes"] = Said(nodes, "; ".join(filter(None, (comment, gone))))
        keys |= _between(network)
    if kind.cores:
        keys["cpu_cores"] = Said(kind.cores)
    return PoolText(ordered(keys), _remarks(partition, kind))


def _host_memory(memory_mb: int) -> Said:
    if memory_mb < 1024:  # RealMemory is 1 where nobody has set it
        return Said(1, f"fill it in: SLURM counts {memory_mb} MB (RealMemory)")
    return Said(memory_mb // 1024)


def _between(network: dict[str, Said]) -> dict[str, Said]:
    if not network:
        guess = "a guess: SLURM does not tell, and no network card of this machine does"
        return {"inter_node": Said(link_of_rate("ethernet", 10), guess)}
    here = network["inter_node"]
    return {
        **network,
        "inter_node": Said(here.value, f"this machine's ({here.comment}); SLURM does not tell"),
    }


def _slurm(partition: Partition, kind: Kind) -> dict[str, str]:
    options = {"partition": partition.name}
    own = kind.features - frozenset().union(*(other.features for other in partition.kinds if other != kind))
    if len(partition.kinds) > 1 and own:
        options["constraint"] = min(own)
    if partition.time_limit is not None:
        options["time"] = partition.time_limit
    return options


def _remarks(partition: Partition, kind: Kind) -> tuple[str, ...]:
    lines = [f"SLURM partition {partition.name}: {', '.join(kind.names)[:200]}"]
    own = kind.features - frozenset().union(*(other.features for other in partition.kinds if other != kind))
    if len(partition.kinds) > 1 and not own:
        lines.append(
            "The partition has other nodes too, and no feature tells these apart: SLURM may choose those. "
            "Ask for these by another partition, or have a feature set."
        )
    return tuple(lines)


def _named_once(pools: Sequence[PoolText]) -> list[PoolText]:
    """Kinds of one partition can have the same GPU."""
    seen: dict[str, int] = {}
    named = []
    for pool in pools:
        name = str(pool.keys["name"].value)
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            name = f"{name[:60]}-{seen[name]}"
        named.append(PoolText({**pool.keys, "name": Said(name)}, pool.remarks))
    return named
