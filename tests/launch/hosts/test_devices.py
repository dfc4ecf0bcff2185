"""Devices as drivers tell of them: nvidia-smi's words, NVML's calls, amdgpu's files."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.launch.hosts.faults import smi
from vdsgen.launch.hosts.devices import by_amdgpu, by_nvidia_smi, by_nvml, parse_smi
from vdsgen.launch.hosts.facts import DeviceProcess
from vdsgen.units import GIB


def test_nvidia_smi_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    apps = "GPU-1, 4711, /usr/bin/python, 20480"
    monkeypatch.setenv(
        "PATH", f"{smi(tmp_path, {}, {'free': 4000, 'errors': 2, 'heat': 'Active'}, apps=apps)}:/bin"
    )
    (first, second), driver = by_nvidia_smi()
    assert driver == "570.86"
    assert (first.index, first.name, first.total_bytes) == (0, "NVIDIA GeForce RTX 3090", 24 * GIB)
    assert (first.uncorrected_errors, first.slowed_by, first.processes) == (None, (), ())
    assert second.free_bytes == 4000 * 2**20
    assert second.processes == (DeviceProcess(pid=4711, name="python", memory_bytes=20 * GIB),)
    assert (second.uncorrected_errors, second.slowed_by) == (2, ("heat (hardware)",))


def test_without_a_driver_there_is_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{smi(tmp_path)}:/bin")
    assert by_nvidia_smi() == ([], None)
    assert by_nvml() == ([], None)


@pytest.mark.parametrize("row", [[], ["x"], ["0", "GPU", "name", "[N/A]"] + ["0"] * 7, ["0"] * 10])
def test_words_that_nobody_expects_are_left_out(row: list[str]) -> None:
    assert parse_smi([row], [["GPU", "x", "y", "z"], ["GPU"]]) == []


class Nvml:
    """What of pynvml is used, with one card that does not answer every question."""

    NVML_MEMORY_ERROR_TYPE_UNCORRECTED = NVML_VOLATILE_ECC = 1

    class NVMLError(Exception): ...

    def __getattr__(self, name: str) -> Any:
        raise self.NVMLError(name)

    def __init__(self) -> None:
        answers: dict[str, Any] = {
            "Init": None,
            "Shutdown": None,
            "SystemGetDriverVersion": b"570.86",
            "DeviceGetCount": 1,
            "DeviceGetHandleByIndex": "handle",
            "DeviceGetName": "NVIDIA H100 80GB HBM3",
            "DeviceGetMemoryInfo": SimpleNamespace(total=80 * GIB, free=79 * GIB),
            "DeviceGetCurrentClocksThrottleReasons": 0x40 | 0x80 | 0x1,
            "DeviceGetComputeRunningProcesses": [SimpleNamespace(pid=1, usedGpuMemory=None)],
            "DeviceGetComputeMode": 2,
        }

        def answering(value: Any) -> Any:
            return lambda *_: value

        for name, value in answers.items():
            setattr(self, f"nvml{name}", answering(value))

    def nvmlDeviceGetTotalEccErrors(self, *_: Any) -> int:  # noqa: N802 - NVML's own name
        raise self.NVMLError("not supported")


def test_nvml_is_read_as_far_as_it_answers() -> None:
    (device,), driver = by_nvml(Nvml())
    assert driver == "570.86"
    assert (device.name, device.free_bytes) == ("NVIDIA H100 80GB HBM3", 79 * GIB)
    assert device.slowed_by == ("heat (hardware)", "the power brake")
    assert device.uncorrected_errors is None
    assert device.refuses_processes
    assert [process.pid for process in device.processes] == [1]


def test_amdgpus_files_are_read(tmp_path: Path) -> None:
    for number, (vendor, used) in enumerate([("0x1002", GIB), ("0x8086", 0), ("0x1002", 0)]):
        folder = tmp_path / f"card{number}" / "device"
        folder.mkdir(parents=True)
        (folder / "vendor").write_text(f"{vendor}\n")
        (folder / "mem_info_vram_total").write_text(f"{64 * GIB}\n")
        (folder / "mem_info_vram_used").write_text(f"{used}\n")
    (tmp_path / "card0" / "device" / "product_name").write_text("AMD Instinct MI210\n")
    (first, second), _ = by_amdgpu(tmp_path)
    assert (first.name, first.free_bytes) == ("AMD Instinct MI210", 63 * GIB)
    assert (second.index, second.name) == (1, "AMD GPU")
