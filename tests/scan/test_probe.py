"""The probe on machines that are there in its parts: a stand-in for NVML, tools that print what was recorded,
and trees of files as Linux has them."""

from __future__ import annotations

import ast
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.scan import machines, recorded
from vdsgen.errors import VdsgenError
from vdsgen.scan import probe
from vdsgen.scan.answer import read_answer
from vdsgen.scan.node import node_of


def tool(folder: Path, name: str, body: str) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def nvidia_smi(folder: Path, query: str, topology: str = "", ways: str = "") -> None:
    """An nvidia-smi that prints these."""
    tool(
        folder,
        "nvidia-smi",
        f"case \"$*\" in\n'topo -m') cat <<'E'\n{topology}E\n;;\n'topo -mp') cat <<'E'\n{ways}E\n;;\n"
        f"*) cat <<'E'\n{query}E\n;;\nesac",
    )


def lines(name: str, count: int, memory_mib: int, generation: int, mig: str = "[N/A]") -> str:
    return "".join(
        f"{name}, 00000000:{index + 1:02X}:00.0, {memory_mib}, 4, {generation}, 16, {mig}\n"
        for index in range(count)
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """First on the PATH; the package of NVML is not installed."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setitem(sys.modules, "pynvml", None)
    return tmp_path / "bin"


def nvlinks(gpus: dict[str, Any]) -> dict[tuple[int, int], int]:
    return {tuple(pair["gpus"]): pair["nvlinks"] for pair in gpus["pairs"]}


def test_nvml_and_nvidia_smi_tell_the_same_links(folder: Path) -> None:
    nvidia_smi(folder, lines("Tesla V100-SXM2-16GB", 8, 16160, 3), recorded.V100_TOPOLOGY)
    by_tables, by_nvml = probe.gpus(), probe.gpus(machines.V100_SERVER)
    assert (by_tables["by"], by_nvml["by"]) == ("nvidia-smi", "nvml")
    assert nvlinks(by_tables) == nvlinks(by_nvml)
    assert nvlinks(by_nvml)[0, 3] == 2
    for one, other in zip(by_tables["devices"], by_nvml["devices"], strict=True):
        assert {key: other[key] for key in one} == one
    assert {device["nvlinks"] for device in by_nvml["devices"]} == {6}
    assert not machines.V100_SERVER.open


def test_links_over_switches_join_all(folder: Path) -> None:
    query = lines("NVIDIA A100-SXM4-40GB", 8, 40960, 4, "Disabled")
    nvidia_smi(folder, query, recorded.DGX_A100_TOPOLOGY)
    assert set(nvlinks(probe.gpus()).values()) == {12}
    assert set(nvlinks(probe.gpus(machines.DGX_A100)).values()) == {12}
    assert {pair["path"] for pair in probe.gpus(machines.DGX_A100)["pairs"]} == {"PXB", "SYS"}


def test_ways_over_pcie_are_told_beside_nvlinks(folder: Path) -> None:
    ways = recorded.PCIE_TOPOLOGY.replace("NODE", "PXB")
    nvidia_smi(folder, lines("NVIDIA A30", 2, 24576, 4), recorded.DGX_A100_TOPOLOGY, ways)
    assert probe.gpus()["pairs"] == [{"gpus": [0, 1], "nvlinks": 12, "path": "PXB"}]


def test_bridges_that_join_pairs_are_named(folder: Path) -> None:
    nvidia_smi(folder, lines("NVIDIA H100 PCIe", 8, 81559, 5, "Disabled"), recorded.H100_PCIE_TOPOLOGY)
    node = node_of(machines.answer_of(machines.FakeNvml([]), gpus=probe.gpus()), "ada")
    link = node.hardware["intra_node"]
    assert (node.hardware["gpu"].value, link.value) == ("h100-80gb-pcie", "pcie-5.0-x16")
    assert link.comment == "NVLink joins GPUs 0 5, 1-2, 3-4, 6-7 only; a ring over all goes over PCIe"


def test_mig_and_what_a_driver_does_not_tell(folder: Path) -> None:
    nvidia_smi(folder, "NVIDIA A100-SXM4-80GB, 00000000:01:00.0, 81920, 61, [N/A], [N/A], Enabled\n")
    (device,) = probe.gpus()["devices"]
    assert (device["mig"], device["pcie_generation"], device["used_bytes"]) == (True, None, 61 * 2**20)
    assert probe.gpus(machines.FakeNvml([machines.Card("A", 1, mig=True)]))["devices"][0]["mig"]
    assert not probe.gpus(machines.FakeNvml([machines.Card("A", 1)]))["devices"][0]["mig"]


def test_why_there_are_no_gpus_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failure = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."
    tool(folder, "nvidia-smi", f'echo "{failure}"; exit 9')
    assert probe.gpus()["problem"] == f"nvidia-smi: {failure}"

    class Broken(machines.FakeNvml):
        def nvmlInit(self) -> None:  # noqa: N802
            raise machines.NVMLError("Driver Not Loaded")

    monkeypatch.setenv("PATH", str(folder / "none"))
    assert probe.gpus(Broken([]))["problem"] == "NVML: Driver Not Loaded"
    assert probe.gpus()["problem"] == "nvidia-smi is not on the PATH"


def test_network_and_memory_are_read_from_linux(tmp_path: Path) -> None:
    for path, text in {
        "proc/meminfo": "MemTotal:       1056571412 kB\nMemFree: 1 kB\n",
        "sys/fs/cgroup/memory.max": "max\n",
        "sys/class/infiniband/mlx5_0/ports/1/rate": "200 Gb/sec (4X HDR)\n",
        "sys/class/infiniband/mlx5_0/ports/1/state": "4: ACTIVE\n",
        "sys/class/infiniband/mlx5_0/ports/1/link_layer": "InfiniBand\n",
        "sys/class/infiniband/mlx5_1/ports/1/rate": "10 Gb/sec (1X QDR)\n",
        "sys/class/infiniband/mlx5_1/ports/1/state": "1: DOWN\n",
        "sys/class/net/eno1/type": "1\n",
        "sys/class/net/eno1/speed": "25000\n",
        "sys/class/net/eno1/operstate": "up\n",
        "sys/class/net/eno1/device/vendor": "0x15b3\n",
        "sys/class/net/ib0/type": "32\n",
        "sys/class/net/ib0/speed": "200000\n",
        "sys/class/net/ib0/operstate": "up\n",
        "sys/class/net/ib0/device/vendor": "0x15b3\n",
        "sys/class/net/docker0/type": "1\n",
        "sys/class/net/docker0/speed": "10000\n",
        "sys/class/net/docker0/operstate": "up\n",
        "sys/class/net/eno2/type": "1\n",
        "sys/class/net/eno2/speed": "-1\n",
        "sys/class/net/eno2/operstate": "down\n",
        "sys/class/net/eno2/device/vendor": "0x15b3\n",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    root = str(tmp_path)
    assert probe.memory_bytes(root) == 1056571412 * 1024
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("1073741824\n")
    assert probe.memory_bytes(root) == 2**30
    assert probe.infiniband(root) == [{"device": "mlx5_0", "gbit": 200.0, "layer": "InfiniBand"}]
    assert probe.ethernet(root) == [{"device": "eno1", "gbit": 25.0}]


def test_mounted_nvme_is_found(folder: Path) -> None:
    mounted = {"name": "nvme0n1p2", "tran": None, "model": None, "size": 1, "mountpoint": "/tmp"}
    boot = {**mounted, "name": "nvme0n1p1", "mountpoint": "/boot/efi"}
    drive = {
        "name": "nvme0n1",
        "tran": "nvme",
        "model": "Samsung SSD 990 PRO 4TB ",
        "size": 4,
        "mountpoint": None,
    }
    disk = {"name": "sda1", "tran": "sata", "model": "x", "size": 4, "mountpoint": "/"}
    text = json.dumps({"blockdevices": [{**drive, "children": [boot, mounted]}, disk]})
    tool(folder, "lsblk", f"cat <<'E'\n{text}\nE")
    (found,) = probe.nvme()
    assert (found["path"], found["model"]) == ("/tmp", "Samsung SSD 990 PRO 4TB")
    tool(folder, "lsblk", "echo no json")
    assert probe.nvme() == []


def test_it_stands_alone_and_is_old_python() -> None:
    source = Path(probe.__file__).read_text()
    tree = ast.parse(source, feature_version=(3, 6))
    imported = {
        alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    } | {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported <= {*sys.stdlib_module_names, "pynvml"}
    done = subprocess.run(
        [sys.executable, "-I", "-"], input=source, capture_output=True, text=True, check=True, cwd="/"
    )
    answer = read_answer(f"Welcome to this host\n{done.stdout}")
    assert answer.memory_bytes > 0 and answer.cpu_cores > 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Permission denied",
        f"{probe.MARK}[]",
        f"{probe.MARK}" + "[" * 100_000,
        f'{probe.MARK}{{"version": 2}}',
        probe.MARK + json.dumps({**probe.probe(), "memory_bytes": -1}),
        probe.MARK + json.dumps({**probe.probe(), "host": "a\u2028pools: []"}),
        probe.MARK + json.dumps({**probe.probe(), "more": 1}),
    ],
)
def test_an_answer_is_read_as_anybodys(text: str) -> None:
    with pytest.raises(VdsgenError, match="probe"):
        read_answer(text)
