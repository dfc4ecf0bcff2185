"""A GPU as a lab file names it: by the catalogue, or by what its driver tells."""

from __future__ import annotations

from vdsgen.catalog.load import gpus
from vdsgen.scan.answer import Device
from vdsgen.scan.gpu_names import named_by_driver
from vdsgen.scan.said import Said
from vdsgen.units import GIB


def gpu_said(device: Device) -> Said | None:
    """None where it is not in the catalogue and its driver did not tell enough (nvidia-smi does not)."""
    name = named_by_driver(device.name, device.memory_bytes)
    return Said(name, device.name) if name is not None else _figures(device)


def _figures(device: Device) -> Said | None:
    """What NVML tells: two operations a core and clock; two transfers a clock of the memory's."""
    told = (device.cuda_cores, device.clock_mhz, device.memory_clock_mhz, device.memory_bus_bits)
    if not all(told):
        return None
    cores, clock_mhz, memory_clock_mhz, bus_bits = told
    assert cores and clock_mhz and memory_clock_mhz and bus_bits
    value = {
        "memory_gib": round(device.memory_bytes / GIB, 2),
        "fp32_tflops": round(cores * 2 * clock_mhz * 1e6 / 1e12, 1),
        "memory_bandwidth_gb_per_second": round(bus_bits / 8 * 2 * memory_clock_mhz * 1e6 / 1e9),
    }
    return Said(
        value,
        f"{device.name} is not in the catalogue. What its driver tells; fp16_tflops and bf16_tflops it does "
        "not: without them plans are in fp32. Add them from its data sheet, or measure (`vdsgen calibrate`)",
        (
            ("fp32_tflops", f"{cores} cores at their highest clock, {clock_mhz} MHz: more than it sustains"),
            ("memory_bandwidth_gb_per_second", f"{bus_bits} bits at {memory_clock_mhz} MHz, twice a clock"),
        ),
    )


def links_of(kind: object) -> tuple[str, ...]:
    """Links that the catalogue gives a GPU; nothing for one that it does not hold."""
    return gpus()[kind].links if isinstance(kind, str) else ()
