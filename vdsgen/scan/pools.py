"""Pools of a lab file from the machines that were found."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from vdsgen.scan.network import link_of_rate
from vdsgen.scan.node import Node
from vdsgen.scan.said import Said

MEMORY_TOLERANCE = 0.03
"""Host memory of machines that are alike."""

ORDER = (
    "name", "gpu", "gpus", "nodes", "gpus_per_node", "free_gpus", "intra_node", "inter_node", "network_cards",
    "host_link", "gpus_per_host_link", "host_memory_gib", "cpu_cores", "hosts", "launcher", "slurm", "groups",
)  # fmt: skip
"""Of a pool's keys, as examples have them."""
GROUP_ORDER = ("hosts", *(key for key in ORDER if key != "hosts"))

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class PoolText:
    """A pool, its comments with it."""

    keys: dict[str, Said]
    remarks: tuple[str, ...] = field(default=())
    """Lines before it."""


def pools_of(nodes: Sequence[Node], *, named: bool, together: bool = False) -> list[PoolText]:
    """Machines that are alike as one pool; those that differ in other things than their GPUs as its groups,
    and other GPUs as other pools. `named`: pools name their hosts. `together`: one pool of all."""
    pools: list[PoolText] = []
    of_kinds = [list(nodes)]
    if not together:
        of_kinds = _collected(nodes, lambda node: tuple(sorted({str(kind.value) for kind in node.kinds})))
    for members in of_kinds:
        pools.append(_pool(members, named, {str(pool.keys["name"].value) for pool in pools}))
    return pools


def _pool(members: Sequence[Node], named: bool, taken: set[str]) -> PoolText:
    if len(members) > 1:
        members = [_reachable(node) for node in members]
    alike = _alike(members)
    if len(alike) == 1:
        keys = _keys(alike[0], named)
    else:
        groups = [_keys(group, named) for group in alike]
        common = {
            key: _agreed([group[key] for group in groups])
            for key, said in groups[0].items()
            if key not in ("hosts", "nodes") and all(group.get(key) == said for group in groups)
        }
        keys = dict(common)
        for key in ("intra_node", "host_memory_gib"):  # a pool must have them
            keys.setdefault(key, min((group[key] for group in groups), key=lambda said: str(said.value)))
        keys["groups"] = Said(
            [
                {key: said for key, said in ordered(group, GROUP_ORDER).items() if keys.get(key) != said}
                for group in groups
            ],
            "what differs from the pool's own keys",
        )
    keys["name"] = Said(_unique(_name(alike), taken))
    if len(members) == 1 and not named:
        for key in ("inter_node", "network_cards"):
            keys.pop(key, None)
    return PoolText(ordered(keys), _remarks(members))


def _reachable(node: Node) -> Node:
    """With a link to others, which a pool of several needs."""
    guess = Said(link_of_rate("ethernet", 10), "a guess: no network card told its rate")
    return replace(node, hardware={"inter_node": guess, **node.hardware})


def _keys(nodes: Sequence[Node], named: bool) -> dict[str, Said]:
    """Of nodes that are alike."""
    keys = {key: _agreed([node.hardware[key] for node in nodes]) for key in nodes[0].hardware}
    keys["host_memory_gib"] = Said(min(node.host_memory_gib for node in nodes))
    if len(nodes) > 1:
        keys["nodes"] = Said(len(nodes))
    if named:
        keys["hosts"] = Said([node.host for node in nodes])
    return keys


def _alike(nodes: Sequence[Node]) -> list[list[Node]]:
    """Nodes in groups of equal hardware, and of nearly equal memory."""
    groups: list[list[Node]] = []
    for node in nodes:
        for group in groups:
            least = min(other.host_memory_gib for other in group)
            near = abs(node.host_memory_gib - least) <= max(1.0, MEMORY_TOLERANCE * least)
            if group[0].hardware == node.hardware and near:
                group.append(node)
                break
        else:
            groups.append([node])
    return groups


def _remarks(members: Sequence[Node]) -> tuple[str, ...]:
    """What holds for all once; what holds for some with their names."""
    lines = []
    for remark in dict.fromkeys(line for node in members for line in node.remarks):
        hosts = [node.host for node in members if remark in node.remarks]
        lines.append(remark if len(hosts) == len(members) else f"{', '.join(hosts)}: {remark}")
    return tuple(lines)


def _name(alike: Sequence[Sequence[Node]]) -> str:
    """`rtx-4090-x4`, `a100-80gb-sxm-2x8`; of groups, their kinds."""
    first = alike[0][0]
    kinds = list(dict.fromkeys(_kind_name(said) for group in alike for said in group[0].kinds))
    if len(alike) > 1 or "gpus" in first.hardware:
        return ("-".join(kinds) if len(kinds) < 3 else "mixed")[:60]
    count = first.hardware["gpus_per_node"].value
    if kinds == ["cpu"]:
        return "cpu"
    nodes = len(alike[0])
    return f"{kinds[0][:50]}-{nodes}x{count}" if nodes > 1 else f"{kinds[0][:50]}-x{count}"


def _kind_name(said: Said) -> str:
    """A name that file names may have; inline figures are of what their comment begins with."""
    if isinstance(said.value, str):
        return said.value
    product = said.comment.partition(" is not in")[0].lower()
    letters = "".join(letter if letter.isalnum() else "-" for letter in product).strip("-")
    return letters.removeprefix("nvidia-") or "gpu"


def _unique(name: str, taken: set[str]) -> str:
    number = 2
    unique = name
    while unique in taken:
        unique = f"{name}-{number}"
        number += 1
    return unique


def _collected(nodes: Sequence[_T], key: Callable[[_T], Hashable]) -> list[list[_T]]:
    """In the order of first appearance."""
    found: dict[Hashable, list[_T]] = {}
    for node in nodes:
        found.setdefault(key(node), []).append(node)
    return list(found.values())


def _agreed(said: Sequence[Said]) -> Said:
    """Of equal values one, with a comment that is true of all."""
    return said[0] if len({one.comment for one in said}) == 1 else replace(said[0], comment="")


def ordered(keys: dict[str, Said], order: Sequence[str] = ORDER) -> dict[str, Said]:
    return {key: keys[key] for key in order if key in keys}
