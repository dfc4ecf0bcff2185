"""`vdsgen launch`, step by step: read, check, make the command, run it."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from vdsgen.errors import VdsgenError
from vdsgen.launch.backends.registry import BACKENDS, SCHEDULERS
from vdsgen.launch.commands import Command, Job, Machine, is_remote
from vdsgen.launch.exported import check_environment_files
from vdsgen.launch.hang_guard import HangGuard
from vdsgen.launch.locks import compiles_operators, extensions_folder, stale_locks
from vdsgen.launch.preflight import (
    check_devices,
    check_inputs,
    check_output,
    check_resumes,
    check_training_installed,
    job_of,
    packages_for,
    this_machine,
)
from vdsgen.launch.progress import Display
from vdsgen.launch.restarts import policy_text, run_again_and_again
from vdsgen.launch.run import Outcome, run
from vdsgen.launch.submit import check_script, submit
from vdsgen.spec.lab import Pool
from vdsgen.spec.launching import Restarts
from vdsgen.spec.rendered import Rendered, read_rendered


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asks for."""

    directory: Path
    output: Path
    steps: int | None = None
    resume: bool = False
    dry_run: bool = False
    clear_stale_locks: bool = False
    measure: bool = False
    """Neither checkpoint nor sample: metrics and a summary only."""
    profile_steps: str | None = None
    """`FIRST:LAST`: a trace is written of these steps."""
    trace_steps: str | None = None
    """`FIRST:LAST`: when each rank runs which instruction is written of these steps."""
    launcher: str | None = None
    """One of `BACKENDS`; None: as the plan's pool says."""
    restarts: int | None = None
    """How often a run that fails is started again; None: as the plan's pool says, or never."""
    hang_seconds: float | None = None
    """0: no run is taken to hang; None: as the plan's pool says, or as long as steps take."""
    preflight: bool = False
    """Measure links and rehearse on every host first."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run that nothing known so far speaks against; nothing is started yet."""

    rendered: Rendered
    job: Job
    machine: Machine
    commands: tuple[Command, ...]
    launch_id: str
    launcher: str
    restarts: Restarts
    hang_seconds: float | None

    @property
    def steps(self) -> int:
        return self.job.steps or self.rendered.experiment.training.steps


def start(request: Request) -> int:
    """Returns the exit code. Raises VdsgenError for everything that is refused before ranks start."""
    prepared = prepare(request)
    job = prepared.job
    if request.dry_run:
        print("\n".join(command.shell() for command in prepared.commands))
        if prepared.launcher not in SCHEDULERS:
            print(f"# {policy_text(prepared.restarts, prepared.hang_seconds)}")
        return 0
    if prepared.launcher in SCHEDULERS:
        number = submit(prepared.commands[0], job)
        print(
            f"Submitted job {number}: {job.world_size} ranks, {prepared.rendered.layout}. Logs: "
            f"{request.output / 'logs'}\n`squeue --job {number}` shows its state, `scancel {number}` ends it."
        )
        return 0
    check_machine(prepared, clear_stale_locks=request.clear_stale_locks)
    if request.preflight or (prepared.launcher == "ssh" and is_remote(job, prepared.machine)):
        from vdsgen.launch.hosts.gate import refuse_unready  # it starts jobs of its own

        refuse_unready(prepared, request)
    layout, logs = prepared.rendered.layout, request.output / "logs"
    print(f"Starting {job.world_size} ranks: {layout}. Logs: {logs}", flush=True)
    display = Display(sys.stdout, job.output / "metrics.jsonl", prepared.steps)
    return run_again_and_again(
        lambda resume: _attempt(prepared, display, resume=resume),
        job.output,
        prepared.restarts,
        display,
        resume=job.resume,
    )


def _attempt(prepared: Prepared, display: Display, *, resume: bool) -> Outcome:
    """One start, with an id and a port of its own. Locks that ranks of an earlier start left as they were
    killed are removed: they were looked for before the first."""
    job, machine = replace(prepared.job, resume=resume), this_machine(os.environ)
    if compiles_operators(prepared.rendered.ds_config) and not is_remote(job, machine):
        check_locks(os.environ, needed=True, clear=True)
    launch_id = uuid.uuid4().hex
    commands = BACKENDS[prepared.launcher](job, machine, launch_id)
    guard = None
    if prepared.hang_seconds != 0:
        guard = HangGuard(job.output, launch_id, job.world_size, prepared.hang_seconds)
    return run(commands, job, launch_id, display, guard)


def prepare(request: Request) -> Prepared:
    """Reads the directory and makes the commands. Raises VdsgenError where the directory, the run directory
    or the folders that training reads from are not right."""
    rendered = read_rendered(request.directory)
    check_output(request.output, resume=request.resume)
    check_inputs(rendered.experiment)
    if request.resume:
        check_resumes(request.output, rendered)
    job = job_of(
        rendered,
        request.output,
        steps=request.steps,
        resume=request.resume,
        measure=request.measure,
        profile_steps=request.profile_steps,
        trace_steps=request.trace_steps,
        environment=os.environ,
    )
    machine = this_machine(os.environ)
    launch_id = uuid.uuid4().hex
    launcher = request.launcher or rendered.plan.inputs.pool.launcher or "deepspeed"
    if launcher not in BACKENDS:
        raise VdsgenError(
            f"jobs of pool {rendered.plan.pool} are started by {launcher}",
            remedy=f"kubectl apply --filename {request.directory / 'pytorchjob.yaml'}, or another --launcher",
        )
    if request.preflight and launcher in SCHEDULERS:
        raise VdsgenError(
            f"{launcher} gives the job its hosts when it starts: none can be asked yet",
            remedy="take some (salloc), name them under `hosts:` in a lab file, generate, try --launcher ssh",
        )
    if launcher == "slurm":
        check_script(request.directory)
    if launcher == "openmpi" or (launcher == "deepspeed" and is_remote(job, machine)):
        check_environment_files(os.environ, (Path.home(), Path.cwd()))
    commands = BACKENDS[launcher](job, machine, launch_id)
    restarts, hang_seconds = survival_of(request, rendered.plan.inputs.pool, launcher)
    return Prepared(rendered, job, machine, commands, launch_id, launcher, restarts, hang_seconds)


def survival_of(request: Request, pool: Pool, launcher: str) -> tuple[Restarts, float | None]:
    """Restarts, and seconds of silence: what the command line says stands above what the pool says. Raises
    VdsgenError where neither can be had."""
    policy = pool.restarts or Restarts(limit=0)
    if request.restarts is not None:
        policy = policy.model_copy(update={"limit": request.restarts})
    asked = [
        name
        for name, value in (("--restarts", request.restarts), ("--hang-seconds", request.hang_seconds))
        if value is not None
    ]
    if launcher in SCHEDULERS and asked:
        raise VdsgenError(
            f"{' and '.join(asked)}: nobody here stays with a job that {launcher} starts",
            remedy=f"leave it out: {launcher} queues the job again after a lost node, which goes on from its "
            "last checkpoint",
        )
    if request.measure:
        if request.restarts:
            raise VdsgenError(
                "--restarts has nothing to go on from: --measure saves no checkpoint",
                remedy="leave one of them out",
            )
        policy = Restarts(limit=0)
    hang_seconds = pool.hang_seconds if request.hang_seconds is None else request.hang_seconds
    return policy, hang_seconds


def check_machine(prepared: Prepared, *, clear_stale_locks: bool) -> None:
    """Raises VdsgenError where packages or devices are missing, or a lock would hold the start up."""
    check_training_installed(packages_for(prepared.rendered.ds_config))
    job, machine, rendered = prepared.job, prepared.machine, prepared.rendered
    if not is_remote(job, machine):
        check_devices(job, rendered.plan, machine.python)
        check_locks(os.environ, needed=compiles_operators(rendered.ds_config), clear=clear_stale_locks)


def check_locks(environment: Mapping[str, str], *, needed: bool, clear: bool) -> None:
    """Refuses a start that would wait for ever, or removes what it would wait for. `needed`: the run compiles
    operators; else locks are only named."""
    locks = stale_locks(extensions_folder(environment))
    if not locks:
        return
    named = "\n".join(f"  {path}" for path in locks)
    if clear:
        for path in locks:
            path.unlink(missing_ok=True)
        print(f"Removed locks of killed compiles:\n{named}", flush=True)
        return
    text = f"a killed compile left its lock behind; a start that compiles would wait for ever:\n{named}"
    if needed:
        raise VdsgenError(
            text,
            remedy="add --clear-stale-locks (no process on this machine holds them), unless another host "
            "that shares this folder is compiling right now",
        )
    print(f"note: {text}\n  This run compiles nothing; --clear-stale-locks removes them.", flush=True)
