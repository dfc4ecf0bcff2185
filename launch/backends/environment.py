"""What a launch changes in the environment of its ranks, and which GPUs of this machine they see."""

from __future__ import annotations

from vdsgen.errors import VdsgenError
from vdsgen.launch.commands import LAUNCH_ID, Job, Machine


def rank_environment(job: Job, machine: Machine, launch_id: str) -> dict[str, str | None]:
    """PATH begins with the interpreter's folder, where `ninja` lies; quiet logs; threads share the cores."""
    present = machine.environment
    path = [str(machine.python.parent), *filter(None, present.get("PATH", "").split(":"))]
    environment: dict[str, str | None] = {
        LAUNCH_ID: launch_id,
        "PATH": ":".join(dict.fromkeys(path)),
        "TORCH_CPP_LOG_LEVEL": present.get("TORCH_CPP_LOG_LEVEL", "ERROR"),
        "PYTHONFAULTHANDLER": "1",
    }
    if job.devices:
        environment["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # as nvidia-smi counts; CUDA puts the fastest first
    if job.on_cpu:
        environment["DS_ACCELERATOR"] = "cpu"
        # DeepSpeed's runner would take it for a list of NUMA nodes (runner.py:449-460).
        environment["CUDA_VISIBLE_DEVICES"] = None
        threads = max(1, machine.cores // job.world_size)
        environment["OMP_NUM_THREADS"] = present.get("OMP_NUM_THREADS", str(threads))
    return environment


def local_devices(job: Job, machine: Machine) -> tuple[str, ...] | None:
    """The GPUs of this machine that a job of one node must use, as CUDA_VISIBLE_DEVICES spells them; None
    where any will do. Raises VdsgenError where the variable hides one that the plan uses, or names too few.
    """
    visible = machine.environment.get("CUDA_VISIBLE_DEVICES", "")
    if job.on_cpu or not (visible or job.devices):
        return None
    named = tuple(device.strip() for device in visible.split(",") if visible)
    if job.devices:
        planned = tuple(str(device) for device in job.devices[0])
        hidden = [device for device in planned if named and device not in named]
        if hidden:
            raise VdsgenError(
                f"the plan uses GPU {' and '.join(hidden)}, CUDA_VISIBLE_DEVICES names {visible}",
                remedy="unset it, or correct free_gpus in the lab file and generate again",
            )
        return planned
    if len(named) < job.world_size:
        raise VdsgenError(
            f"the plan needs {job.world_size} GPUs, CUDA_VISIBLE_DEVICES names {len(named)} ({visible})",
            remedy="name more devices, or plan for a pool of that many GPUs",
        )
    return named[: job.world_size]
