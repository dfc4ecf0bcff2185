"""Runs the plans in rounds, one at a time, from wherever an earlier process got to."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from typing import NamedTuple, TextIO

from vdsgen.ablate.measure import Started, Task
from vdsgen.ablate.progress import Progress, RunDisplay
from vdsgen.ablate.records import Ablation, RunEnded, RunStarted
from vdsgen.ablate.results import results_of
from vdsgen.ablate.state import AblationDirectory
from vdsgen.launch.watch import kill_all
from vdsgen.spec.run import WARM_UP_STEPS

Measure = Callable[[Task, RunDisplay, Started], RunEnded]


class Work(NamedTuple):
    """What an ablation has done, and what is left of it."""

    ended: tuple[RunEnded, ...]
    """Of these plans and rounds; the latest of each."""
    pending: tuple[tuple[str, int], ...]
    """Plan and round, in the order that they run."""


def work_left(
    directory: AblationDirectory, ablation: Ablation, rounds: int, *, retry_failed: bool = False
) -> Work:
    """Reads the journal, and ends what a killed process left running.

    Rounds go through all plans, so that a machine that becomes slower meets all of them; every other round
    backwards, so that a steady drift cancels out. A plan that failed is left out of later rounds.
    `retry_failed`: plans that failed in an earlier process run again.
    """
    names = [plan.name for plan in ablation.plans]
    ended = [run for run in clean_up(directory) if run.plan in names and run.round <= rounds]
    if retry_failed:
        ended = [run for run in ended if run.status == "ok"]
    failed = {run.plan for run in ended if run.status != "ok"}
    done = {(run.plan, run.round) for run in ended}
    pending = [task for task in order(names, rounds) if task not in done and task[0] not in failed]
    return Work(tuple(ended), tuple(pending))


def run_rounds(
    directory: AblationDirectory,
    ablation: Ablation,
    rounds: int,
    work: Work,
    measure: Measure,
    stream: TextIO,
) -> None:
    """Does the work, one plan at a time; every result is on the disk before the next plan starts. Plans that
    fail stop no others. `stream` is told how it goes."""
    failed: set[str] = set()
    progress = Progress(stream, len(work.ended) + len(work.pending), work.ended)
    try:
        for position, (name, round_number) in enumerate(work.pending):
            if name in failed:
                continue
            run = _run_one(directory, ablation, name, round_number, rounds, measure, progress)
            directory.append(run)
            directory.write_results(results_of(ablation, directory.journal()))
            skipped = 0
            if run.status != "ok":
                failed.add(name)
                skipped = sum(other == name for other, _ in work.pending[position + 1 :])
            progress.ended(run, skipped)
    finally:
        progress.close()
    directory.write_results(results_of(ablation, directory.journal()))


def order(names: Sequence[str], rounds: int) -> list[tuple[str, int]]:
    """Plan and round, in the order that they run: there and back."""
    return [
        (name, round_number)
        for round_number in range(1, rounds + 1)
        for name in (names if round_number % 2 else reversed(names))
    ]


def clean_up(directory: AblationDirectory) -> list[RunEnded]:
    """Ends what a killed process left running. Returns the runs that have ended, the latest of each."""
    ended: dict[tuple[str, int], RunEnded] = {}
    open_launches: dict[tuple[str, int], str] = {}
    for line in directory.journal():
        key = (line.plan, line.round)
        if isinstance(line, RunStarted):
            open_launches[key] = line.launch_id
        else:
            ended[key] = line
            open_launches.pop(key, None)
    for launch_id in open_launches.values():
        # Ranks end with their launcher, but not at once; two plans at a time would spoil both.
        kill_all(launch_id)
    return list(ended.values())


def _run_one(
    directory: AblationDirectory,
    ablation: Ablation,
    name: str,
    round_number: int,
    rounds: int,
    measure: Measure,
    progress: Progress,
) -> RunEnded:
    output = directory.run(name, round_number)
    if output.exists():
        # Half a run, or one that failed: it starts anew.
        shutil.rmtree(output)
    task = Task(name, round_number, directory.plan(name), output, ablation.steps)
    progress.begins(name, round_number, rounds)
    display = RunDisplay(progress, output, WARM_UP_STEPS + ablation.steps)
    return measure(
        task,
        display,
        lambda launch_id: directory.append(RunStarted(plan=name, round=round_number, launch_id=launch_id)),
    )
