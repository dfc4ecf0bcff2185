"""The link between machines, from the network cards of one."""

from __future__ import annotations

from vdsgen.catalog.entries import CatalogLink
from vdsgen.catalog.load import links
from vdsgen.scan.answer import Answer
from vdsgen.scan.said import Said

GBIT = 1e9 / 8
GB = 1e9


def network_said(answer: Answer) -> dict[str, Said]:
    """`inter_node` and `network_cards`: RDMA where there is some, else the fastest Ethernet. Empty: no link
    tells its rate."""
    if any(port.gbit for port in answer.infiniband):
        fastest = max(port.gbit for port in answer.infiniband)
        ports = [port for port in answer.infiniband if port.gbit == fastest]
        how = "InfiniBand" if ports[0].layer == "InfiniBand" else "RoCE"
        comment = f"{how} at {fastest:g} Gbit/s: {_named([port.device for port in ports])}"
        said = {"inter_node": Said(link_of_rate("infiniband", fastest), comment)}
        if len(ports) > 1:
            said["network_cards"] = Said(len(ports), "fewer, if some of them are for storage")
        return said
    if any(port.gbit for port in answer.ethernet):
        fastest = max(port.gbit for port in answer.ethernet)
        names = [port.device for port in answer.ethernet if port.gbit == fastest]
        comment = f"Ethernet at {fastest:g} Gbit/s: {_named(names)}"
        return {"inter_node": Said(link_of_rate("ethernet", fastest), comment)}
    return {}


def link_of_rate(kind: str, gbit: float) -> str | dict[str, float]:
    """The catalogue's link of this rate, or figures by the nearest one's part of its line rate."""
    near: dict[str, CatalogLink] = {name: link for name, link in links().items() if link.kind == kind}
    for name, link in near.items():
        assert link.line_rate_gb_per_second is not None
        if abs(link.line_rate_gb_per_second * GB - gbit * GBIT) < 0.01 * gbit * GBIT:
            return name
    link = min(near.values(), key=lambda link: abs((link.line_rate_gb_per_second or 0) * GB - gbit * GBIT))
    assert link.line_rate_gb_per_second is not None
    efficiency = link.bandwidth_gb_per_second / link.line_rate_gb_per_second
    return {
        "bandwidth_gb_per_second": round(gbit * GBIT * efficiency / GB, 4),
        "latency_microseconds": link.latency_microseconds,
    }


def _named(devices: list[str]) -> str:
    return ", ".join(devices[:3]) + (f" and {len(devices) - 3} more" if len(devices) > 3 else "")
