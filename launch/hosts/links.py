"""What links carry beside what the plan counts on. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from vdsgen.launch.hosts.expected import Expected, PlannedHost
from vdsgen.launch.hosts.finding import Finding
from vdsgen.launch.hosts.words import rate
from vdsgen.spec.base import NonNegativeInt, PositiveFloat, Spec

ENOUGH = 0.7
"""Of what the plan counts on: with less, its times are no longer those of this network."""


class LinkRate(Spec):
    """One measurement: two ranks that sent to each other, or all of them reducing."""

    kind: Literal["intra_node", "inter_node", "all_reduce"]
    first: NonNegativeInt
    second: NonNegativeInt
    hosts: tuple[str, ...]
    bytes_per_second: PositiveFloat
    """Each way, both at once; of a reduction, what one link of a ring would carry."""
    planned_bytes_per_second: PositiveFloat | None
    """Of a reduction: the slowest of its links. None: the lab file does not say, as of a hostfile edited by
    hand."""

    @property
    def share(self) -> float:
        """1 where nothing was planned."""
        return self.bytes_per_second / (self.planned_bytes_per_second or self.bytes_per_second)


def rates_of(expected: Expected, measured: Sequence[Mapping[str, Any]]) -> list[LinkRate]:
    """From what ranks printed (`vdsgen.model.link_rates`)."""
    host_of = {rank.rank: host for host in expected.hosts for rank in host.ranks}
    found = []
    for one in measured:
        kind, first, second = one["kind"], one["first"], one["second"]
        if kind == "all_reduce":
            between = expected.hosts
            ways = [_way(host, "intra_node") for host in between if len(host.ranks) > 1]
            ways += [_way(host, "inter_node") for host in between if len(between) > 1]
            planned = _slowest(ways)
        else:
            between = tuple(dict.fromkeys((host_of[first], host_of[second])))
            planned = _slowest([_way(host, kind) for host in between])
        found.append(
            LinkRate(
                kind=kind,
                first=first,
                second=second,
                hosts=tuple(host.name for host in between),
                bytes_per_second=one["bytes_per_second"],
                planned_bytes_per_second=planned,
            )
        )
    return found


def _way(host: PlannedHost, kind: str) -> float | None:
    """Bytes a second that the plan counts on."""
    return host.inter_bytes_per_second if kind == "inter_node" else host.intra_bytes_per_second


def _slowest(ways: Sequence[float | None]) -> float | None:
    """None where one of them is not known."""
    known = [way for way in ways if way is not None]
    return min(known) if len(known) == len(ways) else None


def compare_links(rates: Sequence[LinkRate], enough: float = ENOUGH) -> Iterator[Finding]:
    """A finding for every pair that is too slow. The reduction is told beside them: its figure depends on
    what the library makes of it."""
    for one in rates:
        if one.kind == "all_reduce" or one.share >= enough or one.planned_bytes_per_second is None:
            continue
        way = "between its ranks" if one.kind == "intra_node" else "between the two"
        yield Finding(
            severity="warning",
            check="links",
            host=", ".join(one.hosts),
            message=f"{way} (ranks {one.first} and {one.second}) {rate(one.bytes_per_second)} pass each way, "
            f"the plan counts on {rate(one.planned_bytes_per_second)} ({one.share:.0%})",
            remedy=f"correct {one.kind} in the lab file and generate again, or see why the link is slow: "
            "nvidia-smi topo -m, ibstat, ethtool, NCCL_DEBUG=INFO",
        )


def slowest(rates: Sequence[LinkRate]) -> dict[str, LinkRate]:
    """Of each kind."""
    found: dict[str, LinkRate] = {}
    for one in rates:
        if one.kind not in found or one.share < found[one.kind].share:
            found[one.kind] = one
    return found
