"""What can be wrong with hosts, done for real: each fault, which check is to find it, and on which host."""

from __future__ import annotations

import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

import vdsgen
from tests.launch.hosts.lab import FIRST, SECOND, TwoHosts, render_for

Inject = Callable[[TwoHosts, Path], AbstractContextManager[None]]
"""Given the lab and an empty folder: does it for the time of a `with`."""


@dataclass(frozen=True, slots=True)
class Fault:
    name: str
    check: str
    host: str
    words: str
    """In the finding's message."""
    inject: Inject
    severity: str = "error"
    only_root: bool = True


def _mounted(*mounts: Callable[[TwoHosts, Path], str]) -> Inject:
    """Files of the second host alone."""
    return lambda lab, scratch: lab.on_second(mounts=[mount(lab, scratch) for mount in mounts])


def _empty(path: Callable[[TwoHosts], Path]) -> Callable[[TwoHosts, Path], str]:
    return lambda lab, _: f"-t tmpfs none {shlex.quote(str(path(lab)))}"


def _changed(path: Path, old: str, new: str) -> Callable[[TwoHosts, Path], str]:
    """A file in which other words stand."""

    def mount(_: TwoHosts, scratch: Path) -> str:
        text = path.read_text()
        assert old in text, f"{path} has no {old!r}"
        (scratch / path.name).write_text(text.replace(old, new))
        return f"--bind {shlex.quote(str(scratch / path.name))} {shlex.quote(str(path))}"

    return mount


@contextmanager
def _run_on(lab: TwoHosts, folder: Path, mount: list[str]) -> Iterator[None]:
    """The folder that holds the run directory is another file system, for everybody."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", *mount, str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)
        folder.rmdir()


def _small_disk(lab: TwoHosts, _: Path) -> AbstractContextManager[None]:
    return _run_on(lab, lab.run.parent, ["-t", "tmpfs", "-o", "size=16m", "none"])


def _few_inodes(lab: TwoHosts, _: Path) -> AbstractContextManager[None]:
    return _run_on(lab, lab.run.parent, ["-t", "tmpfs", "-o", "nr_inodes=60", "none"])


@contextmanager
def _port_taken(lab: TwoHosts, _: Path) -> Iterator[None]:
    with socket.create_server(("", lab.port)):
        yield


@contextmanager
def _unknown_key(lab: TwoHosts, _: Path) -> Iterator[None]:
    text = lab.known_hosts.read_text()
    lab.known_hosts.write_text("".join(line for line in text.splitlines(True) if SECOND not in line))
    yield
    lab.known_hosts.write_text(text)


@contextmanager
def _another_key(lab: TwoHosts, scratch: Path) -> Iterator[None]:
    text = lab.known_hosts.read_text()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(scratch / "key")], check=True)
    other = " ".join((scratch / "key.pub").read_text().split()[:2])
    lines = [f"{line.split()[0]} {other}\n" if SECOND in line else line for line in text.splitlines(True)]
    lab.known_hosts.write_text("".join(lines))
    yield
    lab.known_hosts.write_text(text)


@contextmanager
def _key_not_let_in(lab: TwoHosts, scratch: Path) -> Iterator[None]:
    config = lab.ssh / "ssh_config"
    text = config.read_text()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(scratch / "key")], check=True)
    own = text.replace(f"{lab.ssh}/user", str(scratch / "key"))
    config.write_text(f"Host {SECOND}\n{own}Host {FIRST}\n{text}")
    yield
    config.write_text(text)


@contextmanager
def _silent(lab: TwoHosts, _: Path) -> Iterator[None]:
    """Somebody takes connections there, and never says anything: a host that hangs."""
    config = lab.ssh / "ssh_config"
    text = config.read_text()
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        port = deaf.getsockname()[1]
        config.write_text(f"Host {SECOND}\n  HostName 127.0.0.1\n  Port {port}\nHost *\n{text}")
        yield
        config.write_text(text)


@contextmanager
def _nobody(lab: TwoHosts, _: Path) -> Iterator[None]:
    config = lab.ssh / "ssh_config"
    text = config.read_text()
    config.write_text(f"Host {SECOND}\n  HostName no-such-host.invalid\nHost *\n{text}")
    yield
    config.write_text(text)


def _before(words: str) -> Inject:
    return lambda lab, _: lab.on_second(before=words)


@contextmanager
def _fewer_cores(lab: TwoHosts, _: Path) -> Iterator[None]:
    with _another_plan(lab, cpu_cores=2), lab.on_second(before="taskset -p -c 0 $$ > /dev/null"):
        yield


@contextmanager
def _another_plan(lab: TwoHosts, **changes: object) -> Iterator[None]:
    aside = lab.folder / "aside"
    lab.plan.rename(aside)
    render_for(lab.plan, lab.clips, **changes)
    try:
        yield
    finally:
        shutil.rmtree(lab.plan)
        aside.rename(lab.plan)


CLOCK = """\
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>
int clock_gettime(clockid_t id, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int code = real(id, now);
    if (id == CLOCK_REALTIME) now->tv_sec += 90;
    return code;
}
"""


@contextmanager
def _fast_clock(lab: TwoHosts, scratch: Path) -> Iterator[None]:
    """A library before all others that is 90 s ahead."""
    (scratch / "clock.c").write_text(CLOCK)
    built = scratch / "clock.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(built), str(scratch / "clock.c"), "-ldl"], check=True)
    with lab.on_second(before=f"export LD_PRELOAD={shlex.quote(str(built))}"):
        yield


SMI = """\
#!/bin/sh
case "$1" in
*query-gpu*) {gpus} ;;
*) {apps} ;;
esac
"""
OFF = "Not Active"
GPU = "{index}, GPU-{index}, {name}, {total}, {free}, 570.86, Default, {errors}, {heat}, {off}, {off}"
USUAL = {"name": "NVIDIA GeForce RTX 3090", "total": 24576, "free": 24260, "errors": "[N/A]", "heat": OFF}


def smi(folder: Path, *gpus: dict[str, object], apps: str = "") -> Path:
    """A program that answers as nvidia-smi does, in a folder to be put first on PATH."""
    rows = [GPU.format(index=index, off=OFF, **(USUAL | changes)) for index, changes in enumerate(gpus)]
    program = folder / "nvidia-smi"
    said = ";".join(f"echo {shlex.quote(row)}" for row in rows) or "exit 9"
    program.write_text(SMI.format(gpus=said, apps=f"echo {shlex.quote(apps)}" if apps else "true"))
    program.chmod(0o755)
    return folder


def _gpus(*second: dict[str, object], apps: str = "") -> Inject:
    """Both hosts have one GPU as planned, the second has these."""

    @contextmanager
    def inject(lab: TwoHosts, scratch: Path) -> Iterator[None]:
        good, bad = scratch / "good", scratch / "bad"
        good.mkdir()
        bad.mkdir()
        smi(good, {})
        smi(bad, *second, apps=apps)
        with ExitStack() as stack:
            stack.enter_context(_another_plan(lab, gpu="rtx-3090"))
            stack.enter_context(lab.on_first(before=f"export PATH={shlex.quote(str(good))}:$PATH"))
            stack.enter_context(lab.on_second(before=f"export PATH={shlex.quote(str(bad))}:$PATH"))
            yield

    return inject


def _torch_metadata() -> Path:
    installed = distribution("torch")
    return Path(str(installed.locate_file(""))) / f"torch-{installed.version}.dist-info" / "METADATA"


PACKAGE = Path(vdsgen.__file__).parent
TORCH = distribution("torch").version
FAULTS = (
    Fault(
        "run directory not shared",
        "shared folder",
        SECOND,
        "another one there",
        _mounted(_empty(lambda lab: lab.run.parent)),
    ),
    Fault(
        "run directory cannot be written",
        "shared folder",
        SECOND,
        "Read-only file system",
        _mounted(
            lambda lab, _: f"--bind {lab.run.parent} {lab.run.parent}",
            lambda lab, _: f"-o remount,bind,ro {lab.run.parent}",
        ),
    ),
    Fault("disk too small for checkpoints", "disks", f"{FIRST}, {SECOND}", "2 checkpoints of", _small_disk),
    Fault("disk without inodes", "disks", f"{FIRST}, {SECOND}", "inodes", _few_inodes),
    Fault("port taken", "ports", FIRST, "is not free: taken by process", _port_taken),
    Fault(
        "no way to the first host", "ports", SECOND, "does not reach", lambda lab, _: lab.on_second(net=False)
    ),
    Fault("unknown host key", "reach", SECOND, "Host key verification failed", _unknown_key),
    Fault("another host key", "reach", SECOND, "another one than known_hosts has", _another_key),
    Fault("key not let in", "reach", SECOND, "Permission denied", _key_not_let_in),
    Fault("host that hangs", "reach", SECOND, "timed out", _silent),
    Fault("host without a name", "reach", SECOND, "Could not resolve hostname", _nobody),
    Fault(
        "no interpreter",
        "reach",
        SECOND,
        "No such file or directory",
        _mounted(_empty(lambda _: Path(sys.executable).parent)),
    ),
    Fault(
        "working directory missing",
        "reach",
        SECOND,
        "cannot change directory",
        _mounted(_empty(lambda lab: lab.folder.parent)),
    ),
    Fault(
        "another vdsgen",
        "versions",
        SECOND,
        "vdsgen is 0.0.9",
        _mounted(_changed(PACKAGE / "__init__.py", f'"{vdsgen.__version__}"', '"0.0.9"')),
    ),
    Fault(
        "other modules of the same version",
        "versions",
        SECOND,
        "vdsgen's modules",
        _mounted(_changed(PACKAGE / "units.py", "GIB =", "GIB  =")),
    ),
    Fault(
        "another torch",
        "versions",
        SECOND,
        "torch is 2.0.1",
        _mounted(_changed(_torch_metadata(), f"\nVersion: {TORCH}\n", "\nVersion: 2.0.1\n")),
    ),
    Fault(
        "rendered directory edited",
        "rendered directory",
        SECOND,
        "ds_config.json has other bytes",
        lambda lab, scratch: lab.on_second(
            mounts=[_changed(lab.plan / "ds_config.json", "{", "{ ")(lab, scratch)]
        ),
    ),
    Fault(
        "rendered directory missing",
        "rendered directory",
        SECOND,
        "has no",
        _mounted(_empty(lambda lab: lab.plan)),
    ),
    Fault("clips missing", "inputs", SECOND, "data.videos", _mounted(_empty(lambda lab: lab.clips))),
    Fault(
        "clock 90 s ahead", "clocks", SECOND, "90.0 s ahead", _fast_clock, severity="warning", only_root=False
    ),
    Fault(
        "vdsgen not there",
        "reach",
        SECOND,
        "No module named",
        _mounted(_empty(lambda _: PACKAGE / "launch" / "hosts")),
    ),
    Fault(
        "fewer cores",
        "memory",
        SECOND,
        "may use 1 cores, the lab file says 2",
        _fewer_cores,
        severity="warning",
    ),
    Fault(
        "few open files",
        "limits",
        SECOND,
        "may open 200 files",
        _before("ulimit -n 200"),
        severity="warning",
        only_root=False,
    ),
    Fault(
        "small /dev/shm",
        "limits",
        SECOND,
        "/dev/shm has",
        _mounted(lambda *_: "-t tmpfs -o size=16k none /dev/shm"),
        severity="warning",
    ),
    Fault("no GPU", "devices", SECOND, "there is no GPU", _gpus()),
    Fault(
        "another GPU",
        "devices",
        SECOND,
        "is no NVIDIA GeForce RTX 3090",
        _gpus({"name": "NVIDIA GeForce RTX 3080"}),
    ),
    Fault(
        "GPU in use",
        "devices",
        SECOND,
        "python (4711, 20.0 GiB)",
        _gpus({"free": 50}, apps="GPU-0, 4711, /usr/bin/python, 20480"),
    ),
    Fault("GPU with memory errors", "devices", SECOND, "ECC could not correct", _gpus({"errors": 3})),
    Fault("hot GPU", "devices", SECOND, "slowed down by heat", _gpus({"heat": "Active"}), severity="warning"),
)


def fault(name: str) -> Fault:
    return next(one for one in FAULTS if one.name == name)
