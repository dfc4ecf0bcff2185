"""The start of one rank under launchers that give ranks no log files of their own:

    python -m vdsgen.launch.rank [--slurm | --openmpi HOST:PORT] [--continue] LOGS ARGUMENTS-OF-THE-TRAINER...

Opens LOGS/<start>_rank<N>.log, as DeepSpeed's launcher names it (launcher/launch.py:239), and becomes the
trainer: the process stays the same. `--slurm`, `--openmpi`: started by srun or mpirun, whose variables say
which rank this is; ranks of mpirun meet at HOST:PORT.
`--continue`: with `--resume`, where the run directory has a complete checkpoint.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from vdsgen.launch.commands import TRAINER
from vdsgen.spec.checkpoints import CHECKPOINTS, RECORD

SLURM = {"RANK": "SLURM_PROCID", "LOCAL_RANK": "SLURM_LOCALID", "WORLD_SIZE": "SLURM_NTASKS"}
"""srun's names for what torch reads."""
OPENMPI = {
    "RANK": "OMPI_COMM_WORLD_RANK",
    "LOCAL_RANK": "OMPI_COMM_WORLD_LOCAL_RANK",
    "WORLD_SIZE": "OMPI_COMM_WORLD_SIZE",
}
"""mpirun's."""


def variables(starter: str, names: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """What torch reads, under its names. Raises SystemExit where `starter` has not started this process."""
    missing = [name for name in names.values() if name not in environment]
    if missing:
        sys.exit(f"vdsgen.launch.rank: not started by {starter}, there is no {', '.join(missing)}")
    return {name: environment[theirs] for name, theirs in names.items()}


def continued(arguments: Sequence[str]) -> list[str]:
    """What is to be added for a run that goes on. Ranks start before any of them saves: all find the same."""
    if "--output" not in arguments[:-1]:
        return []
    run = Path(arguments[list(arguments).index("--output") + 1])
    return ["--resume"] if any(run.glob(f"{CHECKPOINTS}/*/{RECORD}")) else []


def main(arguments: Sequence[str]) -> NoReturn:
    if arguments and arguments[0] == "--slurm":
        os.environ.update(variables("srun", SLURM, os.environ))
        arguments = arguments[1:]
    elif len(arguments) > 1 and arguments[0] == "--openmpi":
        address, _, port = arguments[1].rpartition(":")
        os.environ.update(variables("mpirun", OPENMPI, os.environ))
        os.environ.update({"MASTER_ADDR": address, "MASTER_PORT": port})
        arguments = arguments[2:]
    if arguments and arguments[0] == "--continue":
        arguments = [*arguments[1:], *continued(arguments)]
    if not arguments:
        sys.exit("usage: python -m vdsgen.launch.rank [--slurm | --openmpi HOST:PORT] [--continue] LOGS ...")
    folder = Path(arguments[0])
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{time.strftime('%Y%m%d%H%M%S')}_rank{os.environ.get('RANK', '0')}.log"
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(log, sys.stdout.fileno())
    os.dup2(log, sys.stderr.fileno())
    os.close(log)
    os.execv(sys.executable, [sys.executable, "-u", "-m", TRAINER, *arguments[1:]])  # noqa: S606 - no shell


if __name__ == "__main__":
    main(sys.argv[1:])
