"""The start of one rank under launchers that give ranks no log files of their own:

    python -m vdsgen.launch.rank [--slurm] [--continue] LOGS ARGUMENTS-OF-THE-TRAINER...

Opens LOGS/<start>_rank<N>.log, as DeepSpeed's launcher names it (launcher/launch.py:239), and becomes the
trainer: the process stays the same. `--slurm`: started by srun, whose variables say which rank this is.
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


def slurm_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Raises SystemExit outside srun."""
    missing = [name for name in SLURM.values() if name not in environment]
    if missing:
        sys.exit(f"vdsgen.launch.rank --slurm: not started by srun, there is no {', '.join(missing)}")
    return {name: environment[theirs] for name, theirs in SLURM.items()}


def continued(arguments: Sequence[str]) -> list[str]:
    """What is to be added for a run that goes on. Ranks start before any of them saves: all find the same."""
    if "--output" not in arguments[:-1]:
        return []
    run = Path(arguments[list(arguments).index("--output") + 1])
    return ["--resume"] if any(run.glob(f"{CHECKPOINTS}/*/{RECORD}")) else []


def main(arguments: Sequence[str]) -> NoReturn:
    if arguments and arguments[0] == "--slurm":
        os.environ.update(slurm_variables(os.environ))
        arguments = arguments[1:]
    if arguments and arguments[0] == "--continue":
        arguments = [*arguments[1:], *continued(arguments)]
    if not arguments:
        sys.exit("usage: python -m vdsgen.launch.rank [--slurm] [--continue] LOGS ARGUMENTS...")
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
