"""A SLURM of one node, this machine, for the time of a test: its own controller, daemon and folders."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.forks.start import free_port

TOOLS = ("slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "squeue")
PREEMPTION = (
    "PreemptType=preempt/partition_prio\nPreemptMode=REQUEUE\n"
    "PartitionName=urgent Nodes={host} PriorityTier=10 MaxTime=INFINITE State=UP\n"
)
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def missing_tools() -> str | None:
    lacking = [tool for tool in TOOLS if shutil.which(tool, path=PATH) is None]
    if lacking:
        return f"there is no {', '.join(lacking)} here (Debian: slurm-wlm)"
    return None if os.getuid() == 0 else "slurmd needs root"


@contextmanager
def running_slurm(
    folder: Path, cores: int = 4, gpus: str = "", *, preempting: bool = False
) -> Iterator[Mapping[str, str]]:
    """The environment in which SLURM's commands reach it. Without authentication: nobody else is here.
    `gpus`: claimed ones, `a100:4`, of which no job can use any. `preempting`: there is a partition
    `urgent`, whose jobs preempt those of `main`, which have a minute's grace."""
    folder.mkdir()
    if gpus:
        kind, count = gpus.split(":")
        devices = [folder / f"gpu{number}" for number in range(int(count))]
        for device in devices:
            device.touch()
        files = "".join(f"Name=gpu Type={kind} File={device}\n" for device in devices)
        (folder / "gres.conf").write_text(files)
    host = socket.gethostname()
    configuration = folder / "slurm.conf"
    configuration.write_text(
        f"ClusterName=test\nSlurmctldHost={host}(127.0.0.1)\nSlurmctldPort={free_port()}\nSlurmdPort={free_port()}\n"
        "SlurmUser=root\nAuthType=auth/none\nCredType=cred/none\nAuthInfo=cred_expire=5\n"
        f"StateSaveLocation={folder}/state\nSlurmdSpoolDir={folder}/spool\n"
        f"SlurmctldPidFile={folder}/slurmctld.pid\nSlurmdPidFile={folder}/slurmd.pid\n"
        f"SlurmctldLogFile={folder}/slurmctld.log\nSlurmdLogFile={folder}/slurmd.log\n"
        "ProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\nSwitchType=switch/none\nMpiDefault=none\n"
        "SelectType=select/cons_tres\nSelectTypeParameters=CR_Core\nSlurmdParameters=config_overrides\n"
        "KillWait=5\nReturnToService=2\nSchedulerParameters=sched_interval=1,sched_min_interval=0\n"
        + ("GresTypes=gpu\n" if gpus else "")
        + f"NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN"
        + (f" Gres=gpu:{gpus}\n" if gpus else "\n")
        + f"PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP GraceTime=60\n"
        + (PREEMPTION.format(host=host) if preempting else "")
    )
    environment = {**os.environ, "PATH": PATH, "SLURM_CONF": str(configuration)}
    with ExitStack() as stack:
        for daemon in ("slurmctld", "slurmd"):
            # In the foreground (-D), so that they end with the test.
            process = subprocess.Popen(
                [shutil.which(daemon, path=PATH) or daemon, "-D", "-f", str(configuration)],
                env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            stack.callback(process.wait)
            stack.callback(process.terminate)
        _wait_until_idle(environment, folder)
        yield environment


def _wait_until_idle(environment: Mapping[str, str], folder: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        shown = subprocess.run(
            ["sinfo", "--noheader", "--format=%T"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if set(shown.stdout.split()) == {"idle"}:
            return
        time.sleep(0.3)
    logs = "\n".join(path.read_text()[-2000:] for path in folder.glob("*.log"))
    raise AssertionError(f"SLURM does not start here: {shown.stdout} {shown.stderr}\n{logs}")
