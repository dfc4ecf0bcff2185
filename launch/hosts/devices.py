"""A host's accelerators, read from whatever there is: NVML, nvidia-smi, the amdgpu driver, or torch.

Nothing here makes a context on a device: what is free stays free.
"""

from __future__ import annotations

import csv
import importlib
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vdsgen.launch.hosts.facts import Device, DeviceProcess, Teller

MIB = 1024**2
SMI_SECONDS = 20.0
SMI_FIELDS = (
    "index",
    "uuid",
    "name",
    "memory.total",
    "memory.free",
    "driver_version",
    "compute_mode",
    "ecc.errors.uncorrected.volatile.total",
    "clocks_throttle_reasons.hw_thermal_slowdown",
    "clocks_throttle_reasons.hw_power_brake_slowdown",
    "clocks_throttle_reasons.sw_thermal_slowdown",
)
SLOWED_BY = ("heat (hardware)", "the power brake", "heat (software)")
"""What the last three fields mean."""
NVML_SLOWDOWNS = {0x40: SLOWED_BY[0], 0x80: SLOWED_BY[1], 0x20: SLOWED_BY[2]}
"""nvmlClocksThrottleReasonHwThermalSlowdown and so on (nvml.h)."""
NVML_COMPUTEMODE_PROHIBITED = 2
DRIVER_FILES = ("nvidia[0-9]*", "dxg", "kfd")
"""Of /dev, one of which is there where torch may find a GPU: NVIDIA's, WSL's, AMD's."""
DRM = Path("/sys/class/drm")
AMD = "0x1002"


def find_devices() -> tuple[tuple[Device, ...], str | None, Teller]:
    """The devices, the driver's version, and who told of them."""
    for teller, look in (("nvml", by_nvml), ("nvidia-smi", by_nvidia_smi), ("amdgpu", by_amdgpu)):
        found, driver = look()
        if found:
            return tuple(found), driver, teller  # type: ignore[return-value]
    found = by_torch() if any(any(Path("/dev").glob(name)) for name in DRIVER_FILES) else []
    return tuple(found), None, "torch" if found else "none"


def by_nvml(module: Any = None) -> tuple[list[Device], str | None]:
    """`module`: pynvml (the package nvidia-ml-py), imported where it is installed."""
    try:
        nvml = importlib.import_module("pynvml") if module is None else module
        nvml.nvmlInit()
    except Exception:
        # Not installed, or there is no driver: its own classes of errors for each.
        return [], None
    try:
        driver = _text(nvml.nvmlSystemGetDriverVersion())
        return [_nvml_device(nvml, index) for index in range(nvml.nvmlDeviceGetCount())], driver
    finally:
        nvml.nvmlShutdown()


def _nvml_device(nvml: Any, index: int) -> Device:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)

    def asked(call: Any, otherwise: Any) -> Any:
        """Not every card answers every question."""
        try:
            return call()
        except nvml.NVMLError:
            return otherwise

    reasons = asked(lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle), 0)
    errors = asked(
        lambda: nvml.nvmlDeviceGetTotalEccErrors(
            handle, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC
        ),
        None,
    )
    running = asked(lambda: nvml.nvmlDeviceGetComputeRunningProcesses(handle), [])
    return Device(
        index=index,
        name=_text(nvml.nvmlDeviceGetName(handle)),
        total_bytes=int(memory.total),
        free_bytes=int(memory.free),
        processes=tuple(
            DeviceProcess(pid=int(one.pid), name=process_name(int(one.pid)), memory_bytes=one.usedGpuMemory)
            for one in running
        ),
        uncorrected_errors=errors,
        slowed_by=tuple(name for bit, name in NVML_SLOWDOWNS.items() if reasons & bit),
        refuses_processes=asked(lambda: nvml.nvmlDeviceGetComputeMode(handle), 0)
        == NVML_COMPUTEMODE_PROHIBITED,
    )


def by_nvidia_smi() -> tuple[list[Device], str | None]:
    if shutil.which("nvidia-smi") is None:
        return [], None
    rows = _smi(f"--query-gpu={','.join(SMI_FIELDS)}")
    processes = _smi("--query-compute-apps=gpu_uuid,pid,process_name,used_memory")
    return parse_smi(rows, processes), (rows[0][5] if rows and len(rows[0]) > 5 else None)


def _smi(query: str) -> list[list[str]]:
    """The answer's rows; none where it fails or hangs, as it does with a lost GPU."""
    try:
        answer = subprocess.run(  # noqa: S603 - an argument list of our own
            ["nvidia-smi", query, "--format=csv,noheader,nounits"],  # noqa: S607 - wherever it lies
            capture_output=True,
            text=True,
            check=False,
            timeout=SMI_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    if answer.returncode != 0:
        return []
    return [row for row in csv.reader(answer.stdout.splitlines(), skipinitialspace=True) if row]


def parse_smi(rows: Sequence[Sequence[str]], processes: Sequence[Sequence[str]]) -> list[Device]:
    """From `SMI_FIELDS` of each GPU, and uuid, pid, name and MiB of each process; sizes are in MiB."""
    held: dict[str, list[DeviceProcess]] = {}
    for row in processes:
        if len(row) == 4 and row[1].isdecimal():
            memory = int(row[3]) * MIB if row[3].isdecimal() else None
            name = Path(row[2]).name or row[2]
            held.setdefault(row[0], []).append(DeviceProcess(pid=int(row[1]), name=name, memory_bytes=memory))
    found = []
    for row in rows:
        if len(row) != len(SMI_FIELDS) or not (row[0].isdecimal() and row[3].isdecimal()):
            continue
        found.append(
            Device(
                index=int(row[0]),
                name=row[2],
                total_bytes=int(row[3]) * MIB,
                free_bytes=int(row[4]) * MIB if row[4].isdecimal() else 0,
                processes=tuple(held.get(row[1], ())),
                uncorrected_errors=int(row[7]) if row[7].isdecimal() else None,
                slowed_by=tuple(
                    reason for reason, state in zip(SLOWED_BY, row[8:], strict=True) if state == "Active"
                ),
                refuses_processes=row[6] == "Prohibited",
            )
        )
    return found


def by_amdgpu(drm: Path = DRM) -> tuple[list[Device], str | None]:
    """What the kernel's own driver says (kernel.org, "GPU amdgpu", miscellaneous information)."""
    found: list[Device] = []
    folders = {path.resolve(): path for path in sorted(drm.glob("card[0-9]*/device"))}
    # By the place on the bus, as ROCm counts.
    for folder in sorted(folders):
        total = _number(folder / "mem_info_vram_total")
        if _words(folder / "vendor") != AMD or not total:
            continue
        name = _words(folder / "product_name") or "AMD GPU"
        used = _number(folder / "mem_info_vram_used") or 0
        free = max(0, total - used)
        found.append(Device(index=len(found), name=name, total_bytes=total, free_bytes=free))
    return found, (_words(Path("/sys/module/amdgpu/version")) or None) if found else None


def by_torch() -> list[Device]:
    """The last way: it takes seconds, and a context on each device for the moment."""
    try:
        torch = importlib.import_module("torch")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        found = []
        for index in range(count):
            free, total = torch.cuda.mem_get_info(index)
            name = torch.cuda.get_device_name(index)
            found.append(Device(index=index, name=name, total_bytes=total, free_bytes=free))
    except (ImportError, RuntimeError):
        return []
    return found


def process_name(pid: int) -> str:
    """Of a process here; `?` where it is another container's or has ended."""
    return _words(Path(f"/proc/{pid}/comm")) or "?"


def _text(answer: str | bytes) -> str:
    """Old releases of pynvml answer in bytes."""
    return answer.decode() if isinstance(answer, bytes) else answer


def _words(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _words(path)
    return int(text) if text.isdecimal() else None
