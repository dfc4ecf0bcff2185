"""What hardware this machine has, as one line of JSON.

Sent to hosts over ssh as it is (`python3 -`), so it stands alone: the standard library, Python 3.6 or newer,
and nothing of this project. `vdsgen.scan.answer` reads what it says. It changes nothing and needs no rights.
"""

import json
import os
import re
import shutil
import socket
import subprocess
from typing import Any

MARK = "vdsgen-probe: "
"""Begins the line of the answer: login shells may print other lines before it."""

SECONDS = 30
"""How long a program that is asked may take."""

SMI_QUERY = "name,pci.bus_id,memory.total,memory.used,pcie.link.gen.max,pcie.link.width.max,mig.mode.current"
"""What nvidia-smi is asked: names that drivers since R450 know."""

NVML_PATHS = {10: "PIX", 20: "PXB", 30: "PHB", 40: "NODE", 50: "SYS"}
"""NVML_TOPOLOGY_* -> what nvidia-smi calls it."""

MOST_NVLINKS = 36
"""NVML_NVLINK_MAX_LINKS of nvidia-ml-py 13."""

NVLINK_TO_PROCESSOR = 1
"""NVML_NVLINK_DEVICE_TYPE_IBMNPU"""

NO_NVIDIA_SMI = "nvidia-smi is not on the PATH"


def probe(root: str = "/", nvml: Any = None) -> "dict[str, Any]":
    """Everything. `root`: where `sys` and `proc` are; `nvml`: what to ask, None: pynvml if it is there."""
    return {
        "version": 1,
        "host": printable(socket.gethostname()),
        "memory_bytes": memory_bytes(root),
        "cpu_cores": len(os.sched_getaffinity(0)),
        "gpus": gpus(nvml),
        "infiniband": infiniband(root),
        "ethernet": ethernet(root),
        "nvme": nvme(),
    }


# The host ---------------------------------------------------------------------------------------------------


def memory_bytes(root: str) -> int:
    """What processes may use: all of it, or the container's limit."""
    found = re.search(r"^MemTotal:\s+(\d+) kB", read(root, "proc", "meminfo"), re.MULTILINE)
    total = int(found.group(1)) * 1024 if found else 0
    limit = read(root, "sys", "fs", "cgroup", "memory.max").strip()
    return min(total, int(limit)) if limit.isdigit() and total else total


def nvme() -> "list[Any]":
    """Mounted file systems on NVMe drives: where, how large, which drive."""
    text = output_of(["lsblk", "--json", "--bytes", "--output", "NAME,TRAN,MODEL,SIZE,MOUNTPOINT"])[0]
    try:
        devices = json.loads(text)["blockdevices"]
    except (ValueError, KeyError, TypeError):
        return []
    found = []
    for device in devices:
        if not str(device.get("name", "")).startswith("nvme") and device.get("tran") != "nvme":
            continue
        parts = [device]
        while parts:
            part = parts.pop()
            parts += part.get("children") or []
            place = part.get("mountpoint")
            if place and place.startswith("/") and not place.startswith("/boot"):
                free = shutil.disk_usage(place)
                found.append(
                    {
                        "path": printable(place),
                        "model": printable((device.get("model") or "").strip()),
                        "size_bytes": free.total,
                    }
                )
    return found


# The network ------------------------------------------------------------------------------------------------


def infiniband(root: str) -> "list[Any]":
    """Active ports of RDMA cards, with their rate in Gbit/s; RoCE has `Ethernet` as its link layer."""
    found = []
    folder = os.path.join(root, "sys", "class", "infiniband")
    for device in entries(folder):
        for port in entries(os.path.join(folder, device, "ports")):
            place = os.path.join(folder, device, "ports", port)
            rate = re.match(r"([\d.]+) Gb/sec", read(place, "rate"))
            if rate and "ACTIVE" in read(place, "state"):
                layer = printable(read(place, "link_layer").strip())
                found.append({"device": printable(device), "gbit": float(rate.group(1)), "layer": layer})
    return found


def ethernet(root: str) -> "list[Any]":
    """Ethernet cards whose link is up, with their rate in Gbit/s."""
    found = []
    folder = os.path.join(root, "sys", "class", "net")
    for name in entries(folder):
        place = os.path.join(folder, name)
        # Type 1 is Ethernet (32 is IP over InfiniBand); what has no device is a bridge, a tunnel or a bond.
        if read(place, "type").strip() != "1" or not os.path.exists(os.path.join(place, "device")):
            continue
        megabits = read(place, "speed").strip()
        if read(place, "operstate").strip() == "up" and megabits.isdigit() and int(megabits) > 0:
            found.append({"device": printable(name), "gbit": int(megabits) / 1000.0})
    return found


# GPUs -------------------------------------------------------------------------------------------------------


def gpus(nvml: Any = None) -> "dict[str, Any]":
    """By NVML where its Python package is there, else by nvidia-smi; `problem` says why there are none."""
    problem = None
    nvml = nvml or installed_nvml()
    if nvml is not None:
        try:
            return gpus_by_nvml(nvml)
        except nvml.NVMLError as error:
            problem = "NVML: {}".format(error)
    asked = gpus_by_nvidia_smi()
    if asked["problem"] == NO_NVIDIA_SMI and problem:
        asked["problem"] = printable(problem)
    return asked


def installed_nvml() -> Any:
    """The module of the nvidia-ml-py package, or None."""
    try:
        import pynvml
    except ImportError:
        return None
    return pynvml


def gpus_by_nvml(nvml: Any) -> "dict[str, Any]":
    """Raises nvml.NVMLError where there is no driver."""
    nvml.nvmlInit()
    try:
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        devices = [device_by_nvml(nvml, handle) for handle in handles]
        places = {device["bus_id"]: index for index, device in enumerate(devices)}
        linked = [nvlinks_by_nvml(nvml, handle, places) for handle in handles]
        pairs = []
        for one in range(len(handles)):
            for other in range(one + 1, len(handles)):
                level = asked(nvml, "nvmlDeviceGetTopologyCommonAncestor", handles[one], handles[other])
                pairs.append(
                    {
                        "gpus": [one, other],
                        "nvlinks": nvlinks_between(linked[one], linked[other], other),
                        "path": NVML_PATHS.get(level),
                    }
                )
        for device, links in zip(devices, linked):
            device["nvlinks"] = len(links)
        return {"by": "nvml", "devices": devices, "pairs": pairs, "problem": None}
    finally:
        nvml.nvmlShutdown()


def device_by_nvml(nvml: Any, handle: Any) -> "dict[str, Any]":
    """What NVML tells of one GPU; None for what this one does not tell."""
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    mig = asked(nvml, "nvmlDeviceGetMigMode", handle)
    return {
        "name": printable(text_of(nvml.nvmlDeviceGetName(handle))),
        "bus_id": bus_id(nvml.nvmlDeviceGetPciInfo(handle).busId),
        "memory_bytes": int(memory.total),
        "used_bytes": int(memory.used),
        "pcie_generation": asked(nvml, "nvmlDeviceGetMaxPcieLinkGeneration", handle),
        "pcie_width": asked(nvml, "nvmlDeviceGetMaxPcieLinkWidth", handle),
        "mig": bool(mig and mig[0]),
        "cuda_cores": asked(nvml, "nvmlDeviceGetNumGpuCores", handle),
        "clock_mhz": asked(nvml, "nvmlDeviceGetMaxClockInfo", handle, 1),  # NVML_CLOCK_SM
        "memory_clock_mhz": asked(nvml, "nvmlDeviceGetMaxClockInfo", handle, 2),  # NVML_CLOCK_MEM
        "memory_bus_bits": asked(nvml, "nvmlDeviceGetMemoryBusWidth", handle),
    }


def nvlinks_by_nvml(nvml: Any, handle: Any, places: "dict[str, int]") -> "list[Any]":
    """For each active NVLink to a GPU or a switch: that GPU's index, or "switch"."""
    found = []  # type: list[Any]
    for link in range(MOST_NVLINKS):
        if not asked(nvml, "nvmlDeviceGetNvLinkState", handle, link):
            continue
        remote = asked(nvml, "nvmlDeviceGetNvLinkRemotePciInfo", handle, link)
        gpu = None if remote is None else places.get(bus_id(remote.busId))
        if gpu is not None:
            found.append(gpu)
        elif asked(nvml, "nvmlDeviceGetNvLinkRemoteDeviceType", handle, link) != NVLINK_TO_PROCESSOR:
            # A virtual machine does not see its switches: what is at the other end is then not known.
            found.append("switch")
    return found


def nvlinks_between(one: "list[Any]", other: "list[Any]", other_index: int) -> int:
    """Direct ones, or as many as both have to switches."""
    return one.count(other_index) or min(one.count("switch"), other.count("switch"))


def gpus_by_nvidia_smi() -> "dict[str, Any]":
    """The same of nvidia-smi's tables, but for clocks and cores."""
    text, problem = output_of(["nvidia-smi", "--query-gpu=" + SMI_QUERY, "--format=csv,noheader,nounits"])
    if problem == "not found":
        problem = NO_NVIDIA_SMI
    devices = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) == 7 and cells[2].isdigit():
            devices.append(
                {
                    "name": printable(cells[0]),
                    "bus_id": bus_id(cells[1]),
                    "memory_bytes": int(cells[2]) * 2**20,
                    "used_bytes": number(cells[3], 0) * 2**20,
                    "pcie_generation": number(cells[4], None),
                    "pcie_width": number(cells[5], None),
                    "mig": cells[6] == "Enabled",
                }
            )
    if not devices:
        problem = problem or "nvidia-smi names no GPU"
        return {"by": "none", "devices": [], "pairs": [], "problem": problem}
    if len(devices) == 1:
        return {"by": "nvidia-smi", "devices": devices, "pairs": [], "problem": None}
    links, _ = output_of(["nvidia-smi", "topo", "-m"])
    ways, _ = output_of(["nvidia-smi", "topo", "-mp"])  # the ways over PCIe, which -m hides behind NVLinks
    pairs = pairs_of_tables(topology(links), topology(ways), len(devices))
    return {"by": "nvidia-smi", "devices": devices, "pairs": pairs, "problem": None}


def topology(text: str) -> "dict[tuple[int, int], str]":
    """(GPU, GPU) -> cell, of the table that `nvidia-smi topo` prints."""
    cells = {}
    columns = None
    for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines():
        words = line.split()
        if columns is None:
            columns = [word for word in words if re.match(r"GPU\d+$", word)] if "GPU0" in words[:1] else None
            continue
        if not words or not re.match(r"GPU\d+$", words[0]) or len(words) <= len(columns):
            continue
        for column, cell in zip(columns, words[1:]):
            cells[int(words[0][3:]), int(column[3:])] = cell
    return cells


def pairs_of_tables(
    links: "dict[tuple[int, int], str]", ways: "dict[tuple[int, int], str]", count: int
) -> "list[Any]":
    pairs = []
    for one in range(count):
        for other in range(one + 1, count):
            cell = links.get((one, other), "")
            nvlinks = re.match(r"NV(\d+)$", cell)
            way = ways.get((one, other), "" if nvlinks else cell)
            pairs.append(
                {
                    "gpus": [one, other],
                    "nvlinks": int(nvlinks.group(1)) if nvlinks else 0,
                    "path": way if way in NVML_PATHS.values() else None,
                }
            )
    return pairs


# Reading ----------------------------------------------------------------------------------------------------


def asked(nvml: Any, name: str, *arguments: Any) -> Any:
    """What a function of NVML answers; None where this driver or this GPU does not know."""
    function = getattr(nvml, name, None)
    if function is None:
        return None
    try:
        return function(*arguments)
    except nvml.NVMLError:
        return None


def output_of(words: "list[Any]") -> "tuple[str, str | None]":
    """Standard output, and what went wrong or None. Never fails."""
    try:
        done = subprocess.run(
            words,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            timeout=SECONDS,
        )
    except OSError:
        return "", "not found"
    except subprocess.TimeoutExpired:
        return "", "{} did not answer within {} s".format(words[0], SECONDS)
    text = done.stdout.decode("utf-8", "replace")
    if done.returncode:
        lines = text.strip().splitlines() or [""]
        return "", printable("{}: {}".format(words[0], lines[0]))
    return text, None


def read(*parts: str) -> str:
    try:
        with open(os.path.join(*parts), encoding="utf-8", errors="replace") as stream:
            return stream.read(65536)
    except OSError:
        return ""


def entries(folder: str) -> "list[Any]":
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def number(text: str, otherwise: Any) -> Any:
    return int(text) if text.isdigit() else otherwise


def text_of(value: Any) -> str:
    """Old versions of pynvml answer bytes."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def bus_id(value: Any) -> str:
    """NVML writes the PCI domain with eight digits, or four: the last part is the same."""
    return printable(text_of(value).strip().lower()[-12:])


def printable(text: str) -> str:
    """One line of ASCII, of a length that people read."""
    return re.sub(r"[^\x20-\x7e]", "?", text)[:200]


if __name__ == "__main__":
    print(MARK + json.dumps(probe(), sort_keys=True))
