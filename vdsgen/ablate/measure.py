"""One plan, run for a few steps exactly as `vdsgen launch --measure` does it."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

from vdsgen.ablate.progress import RunDisplay
from vdsgen.ablate.records import RunEnded, Status
from vdsgen.errors import VdsgenError
from vdsgen.launch.run import Outcome, run
from vdsgen.launch.start import Request, check_machine, prepare
from vdsgen.spec.run import WARM_UP_STEPS, read_json_object

KILLED = 128 + 9
ERROR_LINES = 6
VMSTAT = Path("/proc/vmstat")
OUT_OF_MEMORY = re.compile(
    r"OutOfMemoryError|CUDA out of memory|can't allocate memory|Cannot allocate memory|\bMemoryError\b"
)
"""What torch on a GPU, torch on a processor, the system and Python say."""


class Task(NamedTuple):
    """One run of one plan."""

    plan: str
    round: int
    directory: Path
    """Rendered."""
    output: Path
    """The run directory, not there yet."""
    steps: int
    """Timed ones."""


class InterruptedRunError(Exception):
    """This process was told to stop by a signal while a plan ran."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"signal {signal_number}")
        self.exit_code = 128 + signal_number


Started = Callable[[str], None]
"""Told the launch's id before its first process starts."""


def measure(task: Task, display: RunDisplay, started: Started) -> RunEnded:
    """Runs the plan and reads what it measured. Raises InterruptedRunError, and VdsgenError for what is
    refused before ranks start."""
    prepared = prepare(
        Request(
            directory=task.directory,
            output=task.output,
            steps=WARM_UP_STEPS + task.steps,
            measure=True,
            launcher="deepspeed",
        )
    )
    started(prepared.launch_id)
    began = time.monotonic()
    with _counting_kills() as kills:
        outcome = run(prepared.commands, prepared.job, prepared.launch_id, display)
    if outcome.stopped_by is not None:
        raise InterruptedRunError(outcome.stopped_by)
    wall_seconds = time.monotonic() - began
    return ended(task, outcome, display.messages, wall_seconds, killed_for_memory=kills[0] > 0)


def ended(
    task: Task, outcome: Outcome, messages: list[str], wall_seconds: float, *, killed_for_memory: bool
) -> RunEnded:
    """The record of a run that has ended. `messages`: what the launcher and the ranks said of it."""
    common: dict[str, Any] = {
        "plan": task.plan,
        "round": task.round,
        "exit_code": outcome.exit_code,
        "wall_seconds": wall_seconds,
    }
    if outcome.exit_code == 0:
        try:
            return RunEnded(status="ok", **common, **_figures(task.output))
        except (
            VdsgenError,
            OSError,
            LookupError,
            TypeError,
            ValueError,
            OverflowError,
            RecursionError,
        ) as error:
            return RunEnded(status="failed", **common, error=f"it ended well, but left no figures: {error}")
    text = "\n".join(messages)
    starved = bool(OUT_OF_MEMORY.search(text)) or (outcome.exit_code == KILLED and killed_for_memory)
    status: Status = "out_of_memory" if starved else "failed"
    return RunEnded(status=status, **common, error=_last_words(messages))


def _figures(output: Path) -> dict[str, Any]:
    """Timed steps and peaks, as the trainer wrote them."""
    lines = (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    metrics = [json.loads(line) for line in lines][WARM_UP_STEPS:]
    if not metrics:
        raise ValueError(f"{output / 'metrics.jsonl'} has no step after the warm-up")
    measured = read_json_object(output / "summary.json")["measured"]
    return {
        "step_seconds": tuple(float(step["step_seconds"]) for step in metrics),
        "data_seconds": tuple(float(step["data_seconds"]) for step in metrics),
        "peak_memory_bytes_by_stage": tuple(measured["peak_memory_bytes_by_stage"]),
        "memory_meaning": measured["memory_meaning"],
    }


def _last_words(messages: list[str]) -> str:
    """The first line, which names what failed, and the last ones of the log."""
    lines = [line.strip() for message in messages for line in message.splitlines() if line.strip()]
    first = next((line for line in lines if line.startswith("error:")), "")
    last = [line for line in lines if line != first and not line.startswith("The last lines of ")]
    return "\n".join([*([first] if first else []), *last[-ERROR_LINES:]])


@contextmanager
def _counting_kills() -> Iterator[list[int]]:
    """Yields a list that holds, at the end, how many processes the kernel killed for want of memory."""
    count, before = [0], _kills_so_far()
    yield count
    count[0] = _kills_so_far() - before


def _kills_so_far() -> int:
    """On this machine since its start (proc_vmstat(5), oom_kill); 0 where the kernel does not say."""
    try:
        lines = VMSTAT.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def check_start(directories: Sequence[Path]) -> None:
    """What would keep plans from starting on this machine, asked once, of the plan with most ranks.

    Raises VdsgenError.
    """
    if not directories:
        return
    requests = [
        Request(directory=directory, output=directory / "no run", launcher="deepspeed")
        for directory in directories
    ]
    prepared = max((prepare(request) for request in requests), key=lambda one: one.job.world_size)
    # Its notes are no part of the report.
    with redirect_stdout(sys.stderr):
        check_machine(prepared, clear_stale_locks=False)
