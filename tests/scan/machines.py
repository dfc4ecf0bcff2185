"""Machines as NVML describes them: a stand-in for the library, with the calls that a probe makes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from vdsgen.scan import probe
from vdsgen.scan.answer import Answer

GIB = 2**30
MIB = 2**20


class NVMLError(Exception):
    pass


@dataclass(frozen=True)
class Card:
    """One GPU. Published figures: nvidia-smi's memory, the product's clocks and bus."""

    name: str
    memory_mib: int
    used_mib: int = 4
    generation: int = 4
    width: int = 16
    mig: bool | None = None
    """None: it cannot be cut."""
    cores: int | None = None
    clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    bus_bits: int | None = None


@dataclass
class FakeNvml:
    """As nvidia-ml-py answers on a machine of these cards."""

    cards: Sequence[Card]
    direct: Mapping[tuple[int, int], int] = field(default_factory=dict)
    """NVLinks between pairs."""
    to_switches: int = 0
    """NVLinks of each card to switches."""
    levels: Mapping[tuple[int, int], int] = field(default_factory=dict)
    """NVML_TOPOLOGY_* of pairs; others: SYSTEM."""
    NVMLError = NVMLError

    def nvmlInit(self) -> None:  # noqa: N802
        self.open = True

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open = False

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetName(self, gpu: int) -> bytes:  # noqa: N802
        return self.cards[gpu].name.encode()  # bytes, as versions before 11.5 answer

    def nvmlDeviceGetMemoryInfo(self, gpu: int) -> Any:  # noqa: N802
        return SimpleNamespace(total=self.cards[gpu].memory_mib * MIB, used=self.cards[gpu].used_mib * MIB)

    def nvmlDeviceGetPciInfo(self, gpu: int) -> Any:  # noqa: N802
        return SimpleNamespace(busId=f"00000000:{gpu + 1:02X}:00.0")

    def nvmlDeviceGetMaxPcieLinkGeneration(self, gpu: int) -> int:  # noqa: N802
        return self.cards[gpu].generation

    def nvmlDeviceGetMaxPcieLinkWidth(self, gpu: int) -> int:  # noqa: N802
        return self.cards[gpu].width

    def nvmlDeviceGetMigMode(self, gpu: int) -> list[int]:  # noqa: N802
        mode = self._told(self.cards[gpu].mig)
        return [int(mode), int(mode)]

    def nvmlDeviceGetNumGpuCores(self, gpu: int) -> int:  # noqa: N802
        return int(self._told(self.cards[gpu].cores))

    def nvmlDeviceGetMaxClockInfo(self, gpu: int, kind: int) -> int:  # noqa: N802
        card = self.cards[gpu]
        return int(self._told({1: card.clock_mhz, 2: card.memory_clock_mhz}[kind]))

    def nvmlDeviceGetMemoryBusWidth(self, gpu: int) -> int:  # noqa: N802
        return int(self._told(self.cards[gpu].bus_bits))

    def nvmlDeviceGetTopologyCommonAncestor(self, one: int, other: int) -> int:  # noqa: N802
        return self.levels.get((one, other), 50)

    def nvmlDeviceGetNvLinkState(self, gpu: int, link: int) -> int:  # noqa: N802
        if link >= 18:
            raise NVMLError("Invalid Argument")
        return int(link < len(self._ends(gpu)))

    def nvmlDeviceGetNvLinkRemotePciInfo(self, gpu: int, link: int) -> Any:  # noqa: N802
        end = self._ends(gpu)[link]
        return SimpleNamespace(busId="0000:c0:00.0" if end is None else f"0000:{end + 1:02x}:00.0")

    def nvmlDeviceGetNvLinkRemoteDeviceType(self, gpu: int, link: int) -> int:  # noqa: N802
        return 2 if self._ends(gpu)[link] is None else 0

    def _ends(self, gpu: int) -> list[int | None]:
        ends: list[int | None] = [None] * self.to_switches
        for (one, other), count in self.direct.items():
            if gpu in (one, other):
                ends += [other if gpu == one else one] * count
        return ends

    def _told(self, value: Any) -> Any:
        if value is None:
            raise NVMLError("Not Supported")
        return value


CUBE_MESH = {
    (0, 1): 1, (0, 2): 1, (0, 3): 2, (0, 4): 2, (1, 2): 2, (1, 3): 1, (1, 5): 2, (2, 3): 2, (2, 6): 1,
    (3, 7): 1, (4, 5): 1, (4, 6): 1, (4, 7): 2, (5, 6): 2, (5, 7): 1, (6, 7): 2,
}  # fmt: skip
"""NVLinks of eight V100 (tests/scan/recorded.py has the table)."""

PAIRS_BEHIND_SWITCHES = {(0, 1): 20, (2, 3): 20, (4, 5): 20, (6, 7): 20}

A100 = Card("NVIDIA A100-SXM4-80GB", 81920, mig=False)
H100 = Card("NVIDIA H100 80GB HBM3", 81559, generation=5, mig=False)
V100 = Card("Tesla V100-SXM2-16GB", 16160, generation=3)
RTX_4090 = Card("NVIDIA GeForce RTX 4090", 24564)
RTX_3090 = Card("NVIDIA GeForce RTX 3090", 24576)
RTX_4090_D = Card(
    "NVIDIA GeForce RTX 4090 D", 24564, cores=14592, clock_mhz=3105, memory_clock_mhz=10501, bus_bits=384
)

DGX_A100 = FakeNvml([A100] * 8, to_switches=12, levels=PAIRS_BEHIND_SWITCHES)
DGX_H100 = FakeNvml([H100] * 8, to_switches=18)
V100_SERVER = FakeNvml([V100] * 8, direct=CUBE_MESH)
FOUR_4090 = FakeNvml([RTX_4090] * 4, levels={(0, 1): 40, (2, 3): 40})


def answer_of(nvml: FakeNvml, **changes: Any) -> Answer:
    """What a probe answers there; other keys as given."""
    found = {
        "version": 1, "host": "ada", "memory_bytes": 256 * GIB, "cpu_cores": 64, "gpus": probe.gpus(nvml),
        "infiniband": [], "ethernet": [], "nvme": [],
    }  # fmt: skip
    return Answer.model_validate_json(json.dumps({**found, **changes}))
