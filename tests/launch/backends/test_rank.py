"""One rank's start: its log, its variables, and the trainer in the same process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from vdsgen.launch.rank import OPENMPI, SLURM, continued, main, variables


def test_sruns_names_become_torchs() -> None:
    given = {"SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NTASKS": "8", "HOME": "/"}
    assert variables("srun", SLURM, given) == {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8"}
    with pytest.raises(SystemExit, match="there is no SLURM_LOCALID, SLURM_NTASKS"):
        variables("srun", SLURM, {"SLURM_PROCID": "5"})


def test_mpiruns_names_become_torchs() -> None:
    given = {
        f"OMPI_COMM_WORLD_{name}": str(number) for number, name in enumerate(("RANK", "LOCAL_RANK", "SIZE"))
    }
    assert variables("mpirun", OPENMPI, given) == {"RANK": "0", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}
    with pytest.raises(SystemExit, match="not started by mpirun"):
        variables("mpirun", OPENMPI, {})


def test_the_trainers_output_goes_to_the_ranks_log(tmp_path: Path) -> None:
    shows = "import os, sys; print(os.getpid(), os.environ['RANK'], sys.argv[1:]); sys.exit('gone')"
    (tmp_path / "shows.py").write_text(shows)
    code = (
        "import sys; from vdsgen.launch import rank; rank.TRAINER = 'shows'; "
        "print('never seen') or rank.main(sys.argv[1:])"
    )
    root = Path(__file__).parents[3]
    started = subprocess.Popen(
        [sys.executable, "-c", code, "--slurm", str(tmp_path / "logs dir"), "--output", "a b"],
        env={
            "PYTHONPATH": f"{root}:{tmp_path}",
            "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NTASKS": "4",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    _, errors = started.communicate(timeout=60)
    assert (started.returncode, errors) == (1, b"")
    (log,) = (tmp_path / "logs dir").glob("*_rank3.log")
    assert log.read_text() == f"{started.pid} 3 ['--output', 'a b']\ngone\n"


def test_without_a_folder_it_explains_itself() -> None:
    with pytest.raises(SystemExit, match="usage"):
        main([])


def test_a_run_with_a_complete_checkpoint_goes_on(tmp_path: Path) -> None:
    arguments = ["--continue", "logs", "--plan-dir", "plan", "--output", str(tmp_path)]
    assert continued(arguments) == []
    (tmp_path / "checkpoints" / "step-00000003").mkdir(parents=True)
    assert continued(arguments) == []
    (tmp_path / "checkpoints" / "step-00000003" / "complete.json").touch()
    assert continued(arguments) == ["--resume"]
    assert continued(["--continue", "logs", "--output"]) == []
