"""A host looks at itself: versions, devices, memory, limits, disks, and what training reads."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import resource
import socket
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import vdsgen
from vdsgen.launch.hosts.devices import find_devices
from vdsgen.launch.hosts.facts import Disk, HostFacts, InputRequest, InputState, LookRequest
from vdsgen.spec.checkpoints import sha256_of

PACKAGES = ("torch", "deepspeed", "numpy", "av", "safetensors", "triton", "diffusers", "transformers")
NCCL = ("nvidia-nccl-cu13", "nvidia-nccl-cu12", "nvidia-nccl-cu11")
"""Where torch's wheels have it from."""
TORCH_BUILT_FOR = re.compile(r"^(cuda|hip)\b[^=]*=\s*'([^']+)'", re.MULTILINE)
"""In torch/version.py, read and not run: importing torch takes seconds."""
CGROUP = Path("/sys/fs/cgroup")


def look(asked: LookRequest) -> HostFacts:
    """Reads everything; a part that is not there is an answer too."""
    devices, driver, teller = find_devices() if asked.accelerators else ((), None, "none")
    total, available = memory()
    nvme, nvme_problem = None, None
    if asked.nvme is not None:
        try:
            nvme = disk(Path(asked.nvme), there=True)
        except OSError as error:
            nvme_problem = error.strerror or str(error)
    return HostFacts(
        hostname=socket.gethostname(),
        versions=versions(),
        code_sha256=code_sha256(),
        driver=driver,
        devices=devices,
        devices_from=teller,
        cores=len(os.sched_getaffinity(0)),
        memory_total_bytes=total,
        memory_available_bytes=available,
        open_files=_soft(resource.RLIMIT_NOFILE),
        locked_memory_bytes=_soft(resource.RLIMIT_MEMLOCK),
        infiniband=any(Path("/sys/class/infiniband").glob("*")),
        shared_memory=disk(Path("/dev/shm")) if Path("/dev/shm").is_dir() else None,  # noqa: S108
        output=disk(Path(asked.output)),
        nvme=nvme,
        nvme_problem=nvme_problem,
        rendered=hashes(Path(asked.directory), asked.files),
        inputs={key: input_state(wanted) for key, wanted in asked.inputs.items()},
    )


def versions() -> dict[str, str]:
    """Without importing any of them."""
    found = {"python": platform.python_version(), "vdsgen": vdsgen.__version__}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    for name in NCCL:
        try:
            found["NCCL"] = version(name)
            break
        except PackageNotFoundError:
            continue
    return found | _torch_built_for()


def _torch_built_for() -> dict[str, str]:
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return {}
    try:
        text = (Path(spec.origin).parent / "version.py").read_text()
    except OSError:
        return {}
    names = {"cuda": "CUDA", "hip": "HIP"}
    return {names[name]: value for name, value in TORCH_BUILT_FOR.findall(text)}


def code_sha256() -> str:
    """Of the modules that ranks run: two hosts may have the same version and other files."""
    package = Path(vdsgen.__file__).parent
    digest = hashlib.sha256()
    for folder in (
        package,
        *(package / name for name in ("model", "launch") if (package / name).is_symlink()),
    ):
        for path in sorted(folder.rglob("*.py")):
            digest.update(f"{path.relative_to(package).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def memory() -> tuple[int, int]:
    """Total and available bytes: the machine's, or a control group's where that is less (cgroup-v2)."""
    fields = {}
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        fields[name] = int(rest.split()[0]) * 1024
    total, available = fields["MemTotal"], fields["MemAvailable"]
    limit, used = _cgroup_number("memory.max"), _cgroup_number("memory.current")
    if limit is not None and used is not None:
        total, available = min(total, limit), min(available, max(0, limit - used))
    return total, available


def _cgroup_number(name: str) -> int | None:
    try:
        text = (CGROUP / name).read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def _soft(limit: int) -> int | None:
    soft, _ = resource.getrlimit(limit)
    return None if soft == resource.RLIM_INFINITY else soft


def disk(path: Path, *, there: bool = False) -> Disk:
    """Of the nearest folder above `path` that exists; raises OSError where `path` itself must be `there`."""
    if there:
        path.stat()
    while not path.exists() and path != path.parent:
        path = path.parent
    found = os.statvfs(path)
    return Disk(
        path=str(path),
        free_bytes=found.f_bavail * found.f_frsize,
        total_bytes=found.f_blocks * found.f_frsize,
        free_files=found.f_favail if found.f_files else None,
        writable=os.access(path, os.W_OK | os.X_OK),
    )


def hashes(directory: Path, names: tuple[str, ...]) -> dict[str, str]:
    """Of those files that can be read."""
    found = {}
    for name in names:
        try:
            found[name] = sha256_of(directory / name)
        except OSError:
            continue
    return found


def input_state(wanted: InputRequest) -> InputState:
    path = Path(wanted.path)
    try:
        if path.is_dir():
            os.scandir(path).close()
        else:
            path.open("rb").close()
    except OSError as error:
        return InputState(found=False, problem=error.strerror or str(error))
    return InputState(found=True, differing=_differing(path, wanted.samples))


def _differing(folder: Path, samples: Mapping[str, int]) -> tuple[str, ...]:
    found = []
    for name, size_bytes in samples.items():
        try:
            same = (folder / name).stat().st_size == size_bytes
        except OSError:
            same = False
        if not same:
            found.append(name)
    return tuple(found)
