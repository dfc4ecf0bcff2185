"""A calibration as a fragment that lab files include, and a lab file for this machine."""

from __future__ import annotations

import json
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
    """A lab file for this machine's processor that includes a calibration, as a person would write it."""
    return (
        "# One machine without GPUs: the ranks share its processor.\n"
        "pools:\n"
        "  - name: cpu\n"
        "    gpu: cpu\n"
        f"    gpus_per_node: {ranks}\n"
        "    intra_node: shared-memory\n"
        f"    host_memory_gib: {machine.host_memory_bytes / GIB:.1f}\n"
        f"    cpu_cores: {machine.cpu_cores}\n"
        f"    calibration: {json.dumps(calibration_file)}  # by `vdsgen calibrate`\n"
    )
