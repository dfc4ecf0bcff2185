"""The links between GPUs of one machine, and to its memory, in a lab file's terms."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from vdsgen.catalog.load import links
from vdsgen.scan.answer import Device, Gpus
from vdsgen.scan.gpu_figures import links_of
from vdsgen.scan.said import Said

BEHIND_A_SWITCH = ("PIX", "PXB")
"""Ways over PCIe that do not go through a processor."""

PCIE_GENERATIONS = (3, 4, 5)
PCIE_WIDTHS = (4, 8, 16)
"""Of the catalogue's links."""


def intra_node(gpus: Gpus, kinds: Sequence[object], used: Sequence[int]) -> Said:
    """The slowest hop of a ring over the GPUs that a job may use."""
    pcie = _slowest_pcie(gpus, kinds, used)
    if len(used) < 2:
        return pcie
    joined = _joined_by_nvlink(gpus, used)
    if len(joined) == 1:
        return _nvlink(gpus, kinds, used)
    bridged = [group for group in joined if len(group) > 1]
    if bridged:
        groups = ", ".join(_numbers(group) for group in bridged)
        return Said(pcie.value, f"NVLink joins GPUs {groups} only; a ring over all goes over PCIe")
    halves = _halves(gpus, used)
    if len(halves) > 1:
        between = " and ".join(_numbers(half) for half in halves)
        apart = f"GPUs {between}" if len(halves) < 4 else f"the GPUs, in {len(halves)} groups,"
        return Said(pcie.value, f"no NVLink; {apart} are at different processors")
    return pcie


def host_links(gpus: Gpus, kinds: Sequence[object], used: Sequence[int]) -> dict[str, Said]:
    """`host_link` where it is not the card's own PCIe, `gpus_per_host_link` where cards share one."""
    said = {}
    pcie = _slowest_pcie(gpus, kinds, used)
    own = {name for index in used for name in links_of(kinds[index]) if name.startswith("pcie")}
    if list(own) != [pcie.value]:
        said["host_link"] = pcie
    shared = max((len(group) for group in _groups(used, _behind_one_switch(gpus))), default=1)
    if shared > 1:
        said["gpus_per_host_link"] = Said(shared, "GPUs behind one PCIe switch")
    return said


def _slowest_pcie(gpus: Gpus, kinds: Sequence[object], used: Sequence[int]) -> Said:
    found = [_pcie(gpus.devices[index], kinds[index]) for index in used]
    return min(found, key=lambda said: _bandwidth(said.value))


def _pcie(device: Device, kind: object) -> Said:
    """A card's PCIe, as it and its slot can."""
    own = next((name for name in links_of(kind) if links()[name].kind == "pcie"), None)
    generation, width = device.pcie_generation, device.pcie_width
    if not generation or not width:
        return Said(own or "pcie-3.0-x16", "the driver does not tell" + ("; the card's own" if own else ""))
    comment = "the most that card and slot can"
    value: object = f"pcie-{generation}.0-x{width}"
    if generation not in PCIE_GENERATIONS or width not in PCIE_WIDTHS:
        of_lane = links()["pcie-3.0-x16"].bandwidth_gb_per_second / 16 * 2.0 ** (generation - 3)
        latency = links()["pcie-3.0-x16"].latency_microseconds
        value = {"bandwidth_gb_per_second": round(of_lane * width, 3), "latency_microseconds": latency}
    if own is not None and _bandwidth(value) > links()[own].bandwidth_gb_per_second:
        return Said(own, "the card's own")
    return Said(value, comment)


def _nvlink(gpus: Gpus, kinds: Sequence[object], used: Sequence[int]) -> Said:
    """NVLink that a ring over all takes; scaled where GPUs have fewer links than the catalogue's figure."""
    counts = [_nvlinks(gpus, index, used) for index in used]
    fewest = min(counts)
    full = all(pair.nvlinks for pair in gpus.pairs if set(pair.gpus) <= set(used))
    comment = f"{fewest} NVLinks a GPU"
    if not full:
        apart = [pair.gpus for pair in gpus.pairs if not pair.nvlinks and set(pair.gpus) <= set(used)]
        comment += (
            f"; {len(apart)} of the pairs are not joined directly, such as {apart[0][0]} and {apart[0][1]}"
        )
    names = {name for index in used for name in links_of(kinds[index]) if links()[name].kind == "nvlink"}
    if len(names) != 1:
        name = _nearest_nvlink(fewest)
        return Said(_scaled(name, fewest), f"{comment}: as {name} has them, for no link of this GPU is known")
    name = names.pop()
    link = links()[name]
    assert link.nvlinks is not None
    if fewest == link.nvlinks and (link.joins is None or len(used) <= link.joins):
        return Said(name, comment)
    return Said(_scaled(name, fewest), f"{comment}; {name} is {link.nvlinks} for up to {link.joins} GPUs")


def _nearest_nvlink(count: int) -> str:
    """The slowest entry of as many links, or of the fewest that are more."""
    entries = [(name, link) for name, link in links().items() if link.nvlinks is not None]
    assert entries
    best = min(
        entries, key=lambda entry: (abs((entry[1].nvlinks or 0) - count), entry[1].bandwidth_gb_per_second)
    )
    return best[0]


def _scaled(name: str, count: int) -> dict[str, float]:
    link = links()[name]
    assert link.nvlinks is not None
    return {
        "bandwidth_gb_per_second": round(link.bandwidth_gb_per_second / link.nvlinks * count, 1),
        "latency_microseconds": link.latency_microseconds,
    }


def _nvlinks(gpus: Gpus, index: int, used: Sequence[int]) -> int:
    """Links that a GPU has to the others: NVML counts them, nvidia-smi's table tells of each pair."""
    device = gpus.devices[index]
    if device.nvlinks is not None and len(used) == len(gpus.devices):
        return device.nvlinks
    of_pairs = [
        pair.nvlinks
        for pair in gpus.pairs
        if index in pair.gpus and set(pair.gpus) <= set(used) and pair.nvlinks
    ]
    # Through a switch each pair has all links of a GPU; on a board without one they are shared out.
    return max(of_pairs) if _switched(gpus) else sum(of_pairs)


def _switched(gpus: Gpus) -> bool:
    """Whether all pairs have the same number of links, and more than pairs could share out: the most that a
    GPU has in the catalogue is 18."""
    counts = {pair.nvlinks for pair in gpus.pairs}
    most = max(link.nvlinks or 0 for link in links().values())
    return len(counts) == 1 and counts.copy().pop() * (len(gpus.devices) - 1) > most


def _joined_by_nvlink(gpus: Gpus, used: Sequence[int]) -> list[list[int]]:
    return _groups(used, [pair.gpus for pair in gpus.pairs if pair.nvlinks])


def _behind_one_switch(gpus: Gpus) -> list[tuple[int, int]]:
    return [pair.gpus for pair in gpus.pairs if pair.path in BEHIND_A_SWITCH]


def _halves(gpus: Gpus, used: Sequence[int]) -> list[list[int]]:
    """GPUs by processor; one group where that is not told."""
    return _groups(used, [pair.gpus for pair in gpus.pairs if pair.path != "SYS"])


def _groups(members: Collection[int], joined: Collection[tuple[int, int]]) -> list[list[int]]:
    """Members that pairs connect, in order."""
    group_of = {member: {member} for member in members}
    for one, other in joined:
        if one in group_of and other in group_of and group_of[one] is not group_of[other]:
            group_of[one] |= group_of[other]
            for member in group_of[other]:
                group_of[member] = group_of[one]
    groups: list[list[int]] = []
    for member in sorted(members):
        if not any(member in group for group in groups):
            groups.append(sorted(group_of[member]))
    return groups


def _numbers(group: Sequence[int]) -> str:
    """`0-3`, `0`, `0 2 5`."""
    if len(group) > 1 and list(group) == list(range(group[0], group[-1] + 1)):
        return f"{group[0]}-{group[-1]}"
    return " ".join(map(str, group))


def _bandwidth(value: object) -> float:
    if isinstance(value, str):
        return links()[value].bandwidth_gb_per_second
    assert isinstance(value, dict)
    return float(value["bandwidth_gb_per_second"])
