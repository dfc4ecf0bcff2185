"""From the journal's runs to one result a plan."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from vdsgen.ablate.records import Ablation, MeasuredCosts, PlanEntry, Result, RunEnded, RunStarted
from vdsgen.ablate.statistics import quartiles


def results_of(ablation: Ablation, journal: Sequence[RunStarted | RunEnded]) -> list[Result]:
    """In the order of the plans. Where a run was repeated, its last end counts."""
    latest = {(line.plan, line.round): line for line in journal if isinstance(line, RunEnded)}
    return [
        _result(plan, sorted((run for run in latest.values() if run.plan == plan.name), key=_round))
        for plan in ablation.plans
    ]


def _round(run: RunEnded) -> int:
    return run.round


def _result(plan: PlanEntry, runs: Sequence[RunEnded]) -> Result:
    good = [run for run in runs if run.status == "ok"]
    bad = [run for run in runs if run.status != "ok"]
    return Result(
        plan=plan,
        status=bad[-1].status if bad else "ok" if good else "pending",
        measured=_measured(plan, good) if good else None,
        error=bad[-1].error if bad else "",
    )


def _measured(plan: PlanEntry, runs: Sequence[RunEnded]) -> MeasuredCosts:
    by_round = tuple(statistics.median(run.step_seconds) for run in runs)
    step_seconds = statistics.median(by_round)
    return MeasuredCosts(
        rounds=len(runs),
        step_seconds=step_seconds,
        step_seconds_quartiles=quartiles([seconds for run in runs for seconds in run.step_seconds]),
        round_step_seconds=by_round,
        samples_per_second=plan.global_batch_size / step_seconds,
        data_wait_seconds=statistics.median(statistics.median(run.data_seconds) for run in runs),
        peak_memory_bytes_by_stage=tuple(
            max(peaks) for peaks in zip(*(run.peak_memory_bytes_by_stage for run in runs), strict=True)
        ),
        memory_meaning=runs[0].memory_meaning,
    )
