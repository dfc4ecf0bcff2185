"""What every launcher starts, whatever starts it: the trainer's arguments, and those of one rank's start."""

from __future__ import annotations

from vdsgen.launch.commands import Job

RANK_MODULE = "vdsgen.launch.rank"
"""Opens a rank's log and becomes the trainer: for launchers that cannot write a log of that name."""


def trainer_arguments(job: Job) -> list[str]:
    """After the trainer's name."""
    return ["--plan-dir", str(job.directory), "--output", str(job.output), *run_arguments(job)]


def run_arguments(job: Job) -> list[str]:
    """Those of this start alone."""
    arguments: list[str] = []
    if job.steps is not None:
        arguments += ["--steps", str(job.steps)]
    if job.resume:
        arguments.append("--resume")
    if job.measure:
        arguments.append("--measure")
    if job.profile_steps is not None:
        arguments += ["--profile-steps", job.profile_steps]
    if job.trace_steps is not None:
        arguments += ["--trace-steps", job.trace_steps]
    return arguments


def torchrun_arguments(job: Job, node: int, address: str, port: int) -> list[str]:
    """After the interpreter: torch's launcher for the ranks of one node, with the addresses fixed beforehand.

    Once a second is often enough for torchrun to ask which rank has ended: whoever watches the ranks learns
    of it at once, and must read a rank's status before torchrun takes it.
    """
    return [
        "-m", "torch.distributed.run",
        "--nnodes", str(job.nodes),
        "--node-rank", str(node),
        "--nproc-per-node", str(job.ranks_of_nodes[node]),
        "--master-addr", address,
        "--master-port", str(port),
        "--monitor-interval", "1",
        "--module", RANK_MODULE,
        str(job.output / "logs"),
        *trainer_arguments(job),
    ]  # fmt: skip
