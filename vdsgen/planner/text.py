"""A plan on one screen, as plain text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from vdsgen.planner.baseline import naive_baseline
from vdsgen.planner.tables import (
    Table,
    choice_table,
    host_table,
    memory_table,
    speed_table,
    step_time_of,
    time_table,
)
from vdsgen.planner.words import gib, rate
from vdsgen.planner.workload import Workload
from vdsgen.spec.plan import Plan, Rejected
from vdsgen.units import GIB

WIDTH = 110


def plan_text(plan: Plan, workload: Workload) -> str:
    """The whole report of one plan; ends with a newline."""
    baseline = naive_baseline(workload)
    time = step_time_of(plan, workload)
    lines = [
        f"{plan.model.name} ({plan.model.parameters / 1e9:.3g} B parameters, {plan.model.layers} layers) on "
        f"{plan.pool}: {workload.gpus_text}",
        "",
        *columns(choice_table(plan)),
        *columns(speed_table(plan, workload.experiment.training)),
        *columns(time_table(time)),
        *columns(memory_table(plan, baseline)),
        *(columns(host) if (host := host_table(plan)) else ()),
        _baseline_sentence(plan, baseline.memory.peak_bytes, baseline.fits),
        "",
        "Why",
        *bullets(plan.reasons),
        f"Rejected ({plan.search.candidates} candidates, {plan.search.feasible} fit)",
        *bullets(f"{entry.reason} ({entry.count}): {entry.detail}" for entry in _not_yet_told(plan)),
    ]
    return "\n".join(line.rstrip() for line in lines).rstrip() + "\n"


def _not_yet_told(plan: Plan) -> list[Rejected]:
    """The rejected families, without the slower ones of other layouts: the reasons compare those."""
    own = plan.parallel.pipeline_parallel_size
    return [
        entry
        for entry in plan.search.rejected
        if entry.reason != "slower"
        or entry.nearest.get("settings", {}).get("pipeline_parallel_size", own) == own
    ]


def ranking_text(plans: Sequence[Plan]) -> str:
    """Several plans, one a line, the best first."""
    rows = [("", "pipeline x data", "ZeRO", "micro x steps", "checkpoint", "dtype", "peak GiB", "samples/s")]
    for rank, plan in enumerate(plans, start=1):
        rows.append(
            (
                str(rank),
                f"{plan.parallel.pipeline_parallel_size} x {plan.parallel.data_parallel_size}",
                str(plan.zero.stage),
                f"{plan.batch.micro_batch_size} x {plan.batch.gradient_accumulation_steps}",
                str(plan.activation_checkpointing.interval or "none"),
                plan.precision.dtype,
                f"{max(stage.memory.peak_bytes for stage in plan.stages) / GIB:.2f}",
                rate(plan.predicted.samples_per_second),
            )
        )
    return "\n".join(line.rstrip() for line in columns(Table("Fastest plans", tuple(rows)))).rstrip() + "\n"


def columns(table: Table) -> list[str]:
    """A table's lines, columns aligned: the first to the left, figures to the right."""
    widths = [max(len(row[column]) for row in table.rows) for column in range(len(table.rows[0]))]
    pair = len(widths) == 2
    lines = [table.title]
    for row in table.rows:
        cells = [
            cell.ljust(width) if column == 0 or pair else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  " + "  ".join(cells))
    return [*lines, ""]


def bullets(sentences: Iterable[str]) -> list[str]:
    """Sentences as wrapped bullets."""
    lines: list[str] = []
    for sentence in sentences:
        lines += textwrap.wrap(sentence, WIDTH, initial_indent="  - ", subsequent_indent="    ")
    return [*lines, ""]


def _baseline_sentence(plan: Plan, naive_bytes: int, fits: bool) -> str:
    peak = max(stage.memory.peak_bytes for stage in plan.stages)
    verdict = "fits" if fits else "does not fit"
    saved = 1 - peak / naive_bytes
    change = f"{100 * saved:.0f} % less" if saved >= 0 else f"{-100 * saved:.0f} % more"
    return (
        f"  naive: plain data parallelism, ZeRO-0, micro-batch 1, no checkpointing; {verdict}. "
        f"The plan needs {change} ({gib(peak)} for {gib(naive_bytes)})."
    )
