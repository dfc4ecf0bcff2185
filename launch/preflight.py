"""Everything that can be refused before a rank starts."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vdsgen.errors import VdsgenError
from vdsgen.launch.commands import Job, Machine
from vdsgen.render.placement import placement
from vdsgen.spec.checkpoints import read_checkpoints
from vdsgen.spec.continuing import check_continues
from vdsgen.spec.data import Autoencoder
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.plan import Plan
from vdsgen.spec.rendered import Rendered
from vdsgen.spec.run import section_of
from vdsgen.spec.run_plans import plan_of_checkpoint

TRAINING_PACKAGES = ("torch", "deepspeed", "av", "numpy", "matplotlib", "tensorboard")
VIDEO_SUFFIXES = frozenset({".mp4", ".webm", ".mkv", ".mov", ".avi", ".gif"})


def check_output(output: Path, *, resume: bool) -> None:
    """Nothing of an earlier run is ever overwritten: a run directory is new, or it is resumed."""
    if output.exists() and not output.is_dir():
        raise VdsgenError(f"{output} is a file", remedy="choose another --output")
    complete, incomplete = read_checkpoints(output)
    if resume and not complete:
        half = f"; {'; '.join(incomplete)}" if incomplete else ""
        raise VdsgenError(
            f"nothing to resume: {output} has no complete checkpoint{half}",
            remedy="start without --resume, into a new --output",
        )
    if not resume and output.is_dir() and any(output.iterdir()):
        remedy = "choose a new --output" + (", or add --resume to continue that run" if complete else "")
        raise VdsgenError(f"{output} is not empty", remedy=remedy)


def check_resumes(output: Path, rendered: Rendered) -> None:
    """Raises VdsgenError where the plan would train another run than the one in `output`."""
    complete, _ = read_checkpoints(output)
    before = plan_of_checkpoint(output, list(complete.values())[-1]) if complete else None
    if before is not None:
        check_continues(before, rendered)


def check_training_installed(packages: Sequence[str] = TRAINING_PACKAGES) -> None:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise VdsgenError(
            f"training needs packages that are not installed here: {', '.join(missing)}",
            remedy="pip install 'vdsgen[train]'"
            if set(missing) <= set(TRAINING_PACKAGES)
            else f"pip install {' '.join(missing)}",
        )


def packages_for(ds_config: Mapping[str, Any]) -> tuple[str, ...]:
    """What a run imports: DeepSpeed's monitors want their service's package, on the first rank's host."""
    services = {"wandb": "wandb", "comet": "comet_ml"}
    asked = [
        package for section, package in services.items() if section_of(ds_config, section).get("enabled")
    ]
    return (*TRAINING_PACKAGES, *asked)


def check_inputs(experiment: Experiment) -> None:
    """The folders that training reads from, before ranks start. The clips themselves are the loader's."""
    folder = Path(experiment.data.videos)
    try:
        found = any(
            Path(name).suffix.lower() in VIDEO_SUFFIXES for name in _files_below(folder) if name[0] != "."
        )
    except OSError as error:
        raise VdsgenError(
            f"train.yaml: data.videos: {error.filename}: {error.strerror} (relative to {Path.cwd()})",
            remedy="start where the experiment's relative paths hold, or put data.videos right",
        ) from error
    if not found:
        raise VdsgenError(
            f"train.yaml: data.videos: no video ({', '.join(sorted(VIDEO_SUFFIXES))}) below {folder} "
            f"(relative to {Path.cwd()})"
        )
    folders = {}
    if experiment.data.text_encoder is not None:
        folders["data.text_encoder.path"] = experiment.data.text_encoder.path
    if isinstance(experiment.data.latents, Autoencoder):
        folders["data.latents.path"] = experiment.data.latents.path
    for key, path in folders.items():
        if not Path(path).is_dir():
            raise VdsgenError(f"train.yaml: {key}: {path} is no directory (relative to {Path.cwd()})")


def _files_below(folder: Path) -> Iterator[str]:
    """Names of files, links followed, each folder once. Raises OSError for `folder` itself only: a folder
    below that cannot be read is named by the loader."""
    entered: set[tuple[int, int]] = set()
    with os.scandir(folder):
        pass
    for path, folders, names in os.walk(folder, followlinks=True):
        yield from names
        status = [(name, Path(path, name).stat()) for name in folders if Path(path, name).is_dir()]
        new = [name for name, found in status if (found.st_dev, found.st_ino) not in entered]
        entered |= {(found.st_dev, found.st_ino) for _, found in status}
        folders[:] = new


def runs_on_cpu(plan: Plan, environment: Mapping[str, str]) -> bool:
    """Whether ranks share the processor: the pool has no memory of its own, or the user asks for it."""
    return plan.inputs.pool.on_processors or environment.get("DS_ACCELERATOR") == "cpu"


def check_devices(job: Job, plan: Plan, python: Path) -> None:
    """Ranks of this machine against its devices, asked of DeepSpeed itself in a process of its own."""
    if job.on_cpu:
        return
    name, count = devices_here(python)
    needed = 1 + max(job.devices[0]) if job.devices else job.world_size // job.nodes
    if count < needed:
        raise VdsgenError(
            f"the plan needs {needed} GPUs ({plan.pool}) on this machine, DeepSpeed finds {count} "
            f"(accelerator: {name})",
            remedy="plan for a pool of the GPUs that are here, or set DS_ACCELERATOR=cpu to try it, slowly",
        )


def devices_here(python: Path) -> tuple[str, int]:
    """The accelerator's name and how many of it this machine has, 0 of processors; asked of DeepSpeed in a
    process of its own. Raises VdsgenError where it does not start."""
    script = (
        "from deepspeed.accelerator import get_accelerator as a;"
        "print(); print('vdsgen', a().device_name(), a().device_count() if a().is_available() else 0)"
    )
    answer = subprocess.run(  # noqa: S603 - an argument list of our own
        [str(python), "-c", script], capture_output=True, text=True, check=False
    )
    words = next(
        (line.split()[1:] for line in answer.stdout.splitlines() if line.startswith("vdsgen ")), None
    )
    if words is None:
        raise VdsgenError(f"DeepSpeed does not start here:\n{answer.stderr.strip()}")
    return words[0], 0 if words[0] == "cpu" else int(words[1])


def this_machine(environment: Mapping[str, str]) -> Machine:
    """Reads what the command depends on; `free_port` is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    name = socket.gethostname()
    return Machine(
        python=Path(sys.executable),
        working_directory=Path.cwd(),
        host_names=frozenset({"localhost", "127.0.0.1", name, name.partition(".")[0], socket.getfqdn()}),
        cores=len(os.sched_getaffinity(0)),
        free_port=port,
        environment=environment,
    )


def job_of(
    rendered: Rendered,
    output: Path,
    *,
    steps: int | None,
    resume: bool,
    measure: bool,
    profile_steps: str | None = None,
    trace_steps: str | None = None,
    environment: Mapping[str, str],
) -> Job:
    return Job(
        directory=Path(os.path.abspath(rendered.path)),  # noqa: PTH100
        output=Path(os.path.abspath(output)),  # noqa: PTH100 - links stay as the user wrote them
        world_size=rendered.layout.world_size,
        hosts=tuple(rendered.hosts),
        slots=tuple(rendered.hosts.values()),
        nodes=len(rendered.hosts) or placement(rendered.plan).nodes,
        devices=placement(rendered.plan).devices,
        on_cpu=runs_on_cpu(rendered.plan, environment),
        steps=steps,
        resume=resume,
        measure=measure,
        profile_steps=profile_steps,
        trace_steps=trace_steps,
    )
