"""One `vdsgen ablate`: what is left of an ablation, done."""

from __future__ import annotations

from typing import TextIO

from vdsgen.ablate.choices import Choices
from vdsgen.ablate.entries import ablation_of
from vdsgen.ablate.measure import check_start, measure
from vdsgen.ablate.planning import Planning
from vdsgen.ablate.records import Ablation
from vdsgen.ablate.runner import run_rounds, work_left
from vdsgen.ablate.state import AblationDirectory


def measure_all(
    directory: AblationDirectory,
    planning: Planning,
    choices: Choices,
    steps: int,
    rounds: int,
    stream: TextIO,
    *,
    retry_failed: bool,
) -> Ablation:
    """Renders the plans and runs what is not measured yet; `stream` is told how it goes.

    Raises VdsgenError where the directory holds another ablation or the machine cannot run the plans, and
    InterruptedRunError or KeyboardInterrupt when told to stop: what has ended is kept.
    """
    ablation = ablation_of(planning, choices, steps)
    with directory.locked():
        directory.begin(ablation, {choice.name: choice.files for choice in choices.plans})
        work = work_left(directory, ablation, rounds, retry_failed=retry_failed)
        check_start([directory.plan(name) for name, _ in work.pending])
        run_rounds(directory, ablation, rounds, work, measure, stream)
    return ablation
