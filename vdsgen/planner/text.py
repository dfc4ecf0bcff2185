"""A plan on one screen, as plain text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from vdsgen.cost.settings import Settings
from vdsgen.planner.baseline import naive_baseline
from vdsgen.planner.explanations.tables import (
    binding_sentences,
    binding_title,
    component_table,
    miss_sentences,
    purchase_table,
    scaling_sentences,
    scaling_tables,
    waterfall_table,
)
from vdsgen.planner.plan_settings import settings_of
from vdsgen.planner.tables import (
    Table,
    choice_table,
    host_table,
    memory_table,
    speed_table,
    step_time_of,
    time_table,
)
from vdsgen.planner.words import communication_words, gib, layout_words, offload_words, rate
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
        *_in_short(plan),
        "Why",
        *bullets(plan.reasons),
        f"Rejected ({plan.search.candidates} candidates, {plan.search.feasible} fit)",
        *bullets(f"{entry.reason} ({entry.count}): {entry.detail}" for entry in _not_yet_told(plan)),
    ]
    return "\n".join(line.rstrip() for line in lines).rstrip() + "\n"


def _in_short(plan: Plan) -> list[str]:
    """What binds, and what each measure saves."""
    if plan.explanations is None:
        return []
    known = plan.explanations
    return [
        *columns(waterfall_table(known.waterfall)),
        binding_title(known.bindings),
        *bullets(binding_sentences(known.bindings)),
    ]


def explanations_text(plan: Plan) -> str:
    """The long form: what only planning again tells. Ends with a newline."""
    known = plan.explanations
    assert known is not None and known.scaling is not None, "a plan that was not explained"
    lines = [
        *columns(component_table(known.waterfall)),
        *columns(purchase_table(known.purchases, plan.predicted.samples_per_second), words_last=True),
        *(line for table in scaling_tables(known.scaling) for line in columns(table, words_last=True)),
        *bullets(scaling_sentences(known.scaling)),
        "Nearest misses, each family planned by itself",
        *bullets(miss_sentences(known)),
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
    settings = [settings_of(plan) for plan in plans]
    more = {
        "shared": [_shared_layer(one) for one in settings],
        "besides": [_besides(one) for one in settings],
    }
    more = {name: cells for name, cells in more.items() if any(cells)}
    head = ("", "pipeline x data", "ZeRO", "micro x steps", "checkpoint", "dtype", "peak GiB", "samples/s")
    rows = [(*head, *more)]
    for place, (plan, chosen) in enumerate(zip(plans, settings, strict=True)):
        rows.append(
            (
                str(place + 1),
                f"{chosen.pipeline_parallel_size} x {chosen.data_parallel_size}",
                str(chosen.zero_stage),
                f"{chosen.micro_batch_size} x {chosen.gradient_accumulation_steps}",
                _intervals(chosen),
                chosen.dtype,
                f"{max(stage.memory.peak_bytes for stage in plan.stages) / GIB:.2f}",
                rate(plan.predicted.samples_per_second),
                *(cells[place] or "-" for cells in more.values()),
            )
        )
    return "\n".join(line.rstrip() for line in columns(Table("Fastest plans", tuple(rows)))).rstrip() + "\n"


def _shared_layer(settings: Settings) -> str:
    """Ranks that share a layer: 'tensor 2'; empty where none do."""
    _, _, more = layout_words(settings).partition(f"data {settings.data_parallel_size}")
    return more.removeprefix(" x ")


def _besides(settings: Settings) -> str:
    """What is offloaded, and how gradients travel."""
    return ", ".join(filter(None, (*offload_words(settings), communication_words(settings))))


def _intervals(settings: Settings) -> str:
    each = settings.stage_checkpoint_intervals or (settings.activation_checkpoint_interval,)
    text = "/".join(str(interval or "none") for interval in each)
    for by_stage, word in (
        (settings.stage_selective_layers, "selective"),
        (settings.stage_plain_layers, "plain"),
    ):
        if by_stage:
            text += f", last {'/'.join(str(count) for count in by_stage)} {word}"
    return f"{text}, {settings.activation_compression}" if settings.packs else text


def columns(table: Table, *, words_last: bool = False) -> list[str]:
    """A table's lines, columns aligned: the first to the left, figures to the right; `words_last`: the last
    to the left as well."""
    widths = [max(len(row[column]) for row in table.rows) for column in range(len(table.rows[0]))]
    left = {0, len(widths) - 1} if words_last or len(widths) == 2 else {0}
    lines = [table.title]
    for row in table.rows:
        cells = [
            cell.ljust(width) if column in left else cell.rjust(width)
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
