"""`vdsgen launch`, step by step: read, check, make the command, run it."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vdsgen.errors import VdsgenError
from vdsgen.launch.commands import is_remote, training_command
from vdsgen.launch.locks import compiles_operators, extensions_folder, stale_locks
from vdsgen.launch.preflight import (
    check_devices,
    check_inputs,
    check_output,
    check_training_installed,
    job_of,
    this_machine,
)
from vdsgen.launch.run import run
from vdsgen.spec.rendered import read_rendered


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asks for."""

    directory: Path
    output: Path
    steps: int | None
    resume: bool
    dry_run: bool
    clear_stale_locks: bool


def start(request: Request) -> int:
    """Returns the exit code. Raises VdsgenError for everything that is refused before ranks start."""
    rendered = read_rendered(request.directory)
    check_output(request.output, resume=request.resume)
    check_inputs(rendered.experiment)
    job = job_of(rendered, request.output, steps=request.steps, resume=request.resume, environment=os.environ)
    machine = this_machine(os.environ)
    launch_id = uuid.uuid4().hex
    command = training_command(job, machine, launch_id)
    if request.dry_run:
        print(command.shell())
        return 0
    check_training_installed()
    if not is_remote(job, machine):
        check_devices(job, rendered.plan, machine.python)
        check_locks(
            os.environ, needed=compiles_operators(rendered.ds_config), clear=request.clear_stale_locks
        )
    steps = request.steps or rendered.experiment.training.steps
    print(f"Starting {job.world_size} ranks: {rendered.layout}. Logs: {request.output / 'logs'}", flush=True)
    return run(command, job, launch_id, sys.stdout, steps)


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
