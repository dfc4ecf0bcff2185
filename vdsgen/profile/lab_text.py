"""A calibration as a fragment that lab files include, and a lab file for this machine."""

from __future__ import annotations

from typing import Any

from vdsgen.profile.machine import Machine
from vdsgen.spec.calibration import Calibration
from vdsgen.units import GIB


def fragment(calibration: Calibration) -> str:
    """YAML: one line a figure, its quartiles beside it."""
    lines = ["# Measured by `vdsgen calibrate`: medians, with first and third quartiles."]
    for key, value in calibration.model_dump(exclude_none=True).items():
        if isinstance(value, (list, tuple)):
            lines += [f"{key}:", *(f"  - {_flow(entry)}" for entry in value)] if value else []
        else:
            lines.append(f"{key}: {_flow(value)}")
    return "\n".join(lines) + "\n"


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(entry)}" for key, entry in value.items()) + "}"
    return str(value)


def lab_file(machine: Machine, ranks: int, calibration_file: str) -> str:
    """A lab file for this machine that includes a calibration, as a person would have written it."""
    head = "pools:\n"
    tail = (
        f"    host_memory_gib: {machine.host_memory_bytes / GIB:.1f}\n"
        f"    cpu_cores: {machine.cpu_cores}\n"
        f"    calibration: {calibration_file}   # `vdsgen calibrate` wrote it\n"
    )
    if machine.accelerator is None:
        return (
            "# One machine without GPUs: the ranks share its processor.\n"
            f"{head}"
            "  - name: cpu\n"
            "    gpu: cpu\n"
            f"    gpus_per_node: {ranks}\n"
            "    intra_node: shared-memory\n"
            f"{tail}"
        )
    raise AssertionError("a lab file for GPUs names a catalogue GPU")
