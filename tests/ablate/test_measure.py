"""What became of a run: figures, or why there are none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vdsgen.ablate.measure import Task, ended
from vdsgen.launch.run import Outcome
from vdsgen.launch.watch import Death

WELL = Outcome(returncode=0, first_failure=None, ranks_ended=True, stopped_by=None)
CRASHED = Outcome(returncode=1, first_failure=Death(0, 1, 1 << 8), ranks_ended=True, stopped_by=None)
KILLED = Outcome(returncode=247, first_failure=Death(1, 2, 9), ranks_ended=True, stopped_by=None)


def task(output: Path) -> Task:
    return Task("a", 1, output / "plan", output, 2)


def write_run(output: Path) -> None:
    steps = [(9.0, 1.0), (8.0, 1.0), (2.0, 0.5), (3.0, 0.25)]
    lines = [json.dumps({"step_seconds": step, "data_seconds": data}) + "\n" for step, data in steps]
    (output / "metrics.jsonl").write_text("".join(lines))
    measured = {"peak_memory_bytes_by_stage": [7, 8], "memory_meaning": "tensors"}
    (output / "summary.json").write_text(json.dumps({"measured": measured}))


def test_warm_up_steps_are_left_out(tmp_path: Path) -> None:
    write_run(tmp_path)
    run = ended(task(tmp_path), WELL, [], 30.0, killed_for_memory=False)
    assert (run.status, run.step_seconds, run.data_seconds) == ("ok", (2.0, 3.0), (0.5, 0.25))
    assert (run.peak_memory_bytes_by_stage, run.memory_meaning) == ((7, 8), "tensors")


def test_a_run_without_figures_has_failed(tmp_path: Path) -> None:
    run = ended(task(tmp_path), WELL, [], 30.0, killed_for_memory=False)
    assert run.status == "failed"
    assert "left no figures" in run.error and "metrics.jsonl" in run.error


MESSAGES = ["error: rank 0 (process 7) exited with code 1; the job was ended.", "The last lines of x.log:"]


@pytest.mark.parametrize(
    ("outcome", "words", "for_memory", "status"),
    [
        (
            CRASHED,
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB",
            False,
            "out_of_memory",
        ),
        (
            CRASHED,
            "RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory",
            False,
            "out_of_memory",
        ),
        (CRASHED, "MemoryError", False, "out_of_memory"),
        (CRASHED, "ValueError: no such optimizer", False, "failed"),
        (CRASHED, "ValueError: no such optimizer", True, "failed"),
        (KILLED, "", True, "out_of_memory"),
        (KILLED, "", False, "failed"),
    ],
)
def test_want_of_memory_is_told_from_other_failures(
    tmp_path: Path, outcome: Outcome, words: str, for_memory: bool, status: str
) -> None:
    run = ended(task(tmp_path), outcome, [*MESSAGES, f"    {words}"], 3.0, killed_for_memory=for_memory)
    assert run.status == status
    assert run.error.splitlines()[0] == MESSAGES[0]
    assert words in run.error and "last lines" not in run.error
    assert run.exit_code == outcome.exit_code
