"""What a probe says of its machine, read as something that anybody may have written."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, ValidationError

from vdsgen.errors import VdsgenError
from vdsgen.scan import probe
from vdsgen.spec.base import NonNegativeFloat, NonNegativeInt, PositiveInt, Spec

MOST_BYTES = 1 << 20
"""Of an answer: a thousand GPUs of one machine need less."""

Line = Annotated[str, StringConstraints(pattern=r"^[\x20-\x7e]*$", max_length=256)]
"""One line of ASCII: it may stand in a comment and on a terminal."""


class Device(Spec):
    """A GPU, as its driver describes it."""

    name: Line
    bus_id: Line
    memory_bytes: PositiveInt
    used_bytes: NonNegativeInt
    pcie_generation: NonNegativeInt | None = None
    """The highest that it and its slot have; not today's, which is low while nothing runs."""
    pcie_width: NonNegativeInt | None = None
    mig: bool = False
    """Whether it is cut into slices."""
    nvlinks: NonNegativeInt | None = None
    """Active NVLinks to GPUs and switches; None: nvidia-smi tells only of pairs."""
    cuda_cores: NonNegativeInt | None = None
    clock_mhz: NonNegativeInt | None = None
    memory_clock_mhz: NonNegativeInt | None = None
    memory_bus_bits: NonNegativeInt | None = None


class Pair(Spec):
    """Two GPUs of the machine, the lower index first."""

    gpus: tuple[NonNegativeInt, NonNegativeInt]
    nvlinks: NonNegativeInt
    path: Literal["PIX", "PXB", "PHB", "NODE", "SYS"] | None
    """The way over PCIe, as nvidia-smi names it."""


class Gpus(Spec):
    """All GPUs, in the driver's order."""

    by: Literal["nvml", "nvidia-smi", "none"]
    devices: tuple[Device, ...] = Field(max_length=1024)
    pairs: tuple[Pair, ...] = Field(max_length=1024 * 1023 // 2)
    problem: Line | None
    """Why there are none."""


class RdmaPort(Spec):
    device: Line
    gbit: NonNegativeFloat
    layer: Line
    """`InfiniBand`, or `Ethernet` (RoCE)."""


class EthernetPort(Spec):
    device: Line
    gbit: NonNegativeFloat


class Drive(Spec):
    path: Line
    model: Line
    size_bytes: NonNegativeInt


class Answer(Spec):
    """What a probe found."""

    version: Literal[1]
    host: Line
    memory_bytes: PositiveInt
    cpu_cores: PositiveInt
    gpus: Gpus
    infiniband: tuple[RdmaPort, ...] = Field(max_length=256)
    ethernet: tuple[EthernetPort, ...] = Field(max_length=256)
    nvme: tuple[Drive, ...] = Field(max_length=256)


def read_answer(text: str) -> Answer:
    """The answer in what a probe printed. Raises VdsgenError where there is none."""
    lines = [line for line in text.splitlines() if line.startswith(probe.MARK)]
    if not lines:
        raise VdsgenError("the probe printed no answer")
    try:
        return Answer.model_validate_json(lines[-1][len(probe.MARK) :])
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "it"
        raise VdsgenError(f"the probe's answer is not what was asked for: {place}: {first['msg']}") from None


def this_machine() -> Answer:
    """The probe's answer, run in this process."""
    return Answer.model_validate_json(json.dumps(probe.probe()))
