"""What a verification found, for people and for programs."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from vdsgen.units import GIB
from vdsgen.verify.figures import NEGLIGIBLE_BYTES, NEGLIGIBLE_FRACTIONS, TOLERANCES, Row, StageTrace
from vdsgen.verify.run import Verification

PHASES = {
    "compute": "while micro-batches run",
    "reduce": "while gradients are reduced",
    "step": "in the optimizer's step",
}


def as_text(verification: Verification) -> str:
    """The table, the verdict, and what it took."""
    traces = {trace.stage: trace for trace in verification.traces}
    layout, plan = verification.rendered.layout, verification.rendered.plan
    lines = [
        f"{verification.rendered.path}: {plan.model.name}, {plan.model.parameters / 1e9:.3g} B parameters",
        str(layout),
        "Run by DeepSpeed's own engine, as training builds it, on tensors without memory, with GPU kernels.",
        *(f"note: {note}" for note in verification.notes),
        "",
        f"{'GiB':<10}{'':<15}{'planned':>9}{'traced':>9}{'ratio':>8}  tolerance",
    ]
    for stage, rows in groupby(verification.rows, key=lambda row: row.stage):
        for index, row in enumerate(rows):
            lines.append(_line(f"stage {stage}" if index == 0 else "", row))
        lines += [f"{'':<10}{_of_stage(traces[stage])}", ""]
    return "\n".join([*lines, *_closing(verification)]).rstrip() + "\n"


def _line(head: str, row: Row) -> str:
    ratio = "-" if row.ratio is None else f"{row.ratio:.3f}"
    verdict = "ok" if row.within else "EXCEEDED"
    return (
        f"{head:<10}{row.component:<15}{row.planned_bytes / GIB:>9.3f}{row.traced_bytes / GIB:>9.3f}"
        f"{ratio:>8}  {row.tolerance:>4.0%}  {verdict}"
    )


def _of_stage(trace: StageTrace) -> str:
    text = (
        f"layers {trace.layers[0]}-{trace.layers[1] - 1}, {trace.optimizer_class}, peak "
        f"{PHASES[trace.peak_phase]}"
    )
    if trace.build_peak_bytes > trace.peak_bytes:
        text += f"; building the engine held more: {trace.build_peak_bytes / GIB:.3f} GiB"
    return text


def _closing(verification: Verification) -> list[str]:
    trace, count = verification.traces[0], len(verification.traces)
    planned = int(verification.rendered.ds_config["gradient_accumulation_steps"])
    exceeded = [row for row in verification.rows if not row.within]
    verdict = "Within tolerance." if not exceeded else f"NOT within tolerance: {_named(exceeded)}."
    states, activations, rest = (f"{TOLERANCES[name]:.0%}" for name in ("parameters", "activations", "peak"))
    little, more = (f"{NEGLIGIBLE_FRACTIONS[name]:.1%}" for name in ("peak", "workspace"))
    lines = [
        verdict,
        f"Tolerance, of the traced bytes: parameters, gradients and optimizer {states}, activations "
        f"{activations}, workspace, communication and",
        f"peak {rest}. Less than {little} of the stage's peak, or 1 MiB, counts as nothing;",
        f"of workspace and communication, less than {more} of it.",
        "Peaks are of tensors, without the plan's reserve.",
    ]
    if trace.micro_batches < planned:
        lines.append(f"Traced {trace.micro_batches} of {planned} micro-batches a step: more raise no peak.")
    lines.append(
        f"{count} stage{'s' if count > 1 else ''} in {verification.seconds:.0f} s; the processes held up "
        f"to {verification.resident_bytes / GIB:.2f} GiB of real memory together."
    )
    return lines


def _named(rows: list[Row]) -> str:
    return ", ".join(f"{row.component} of stage {row.stage}" for row in rows)


def as_json(verification: Verification) -> dict[str, Any]:
    """One JSON document."""
    rows = {stage: list(group) for stage, group in groupby(verification.rows, key=lambda row: row.stage)}
    return {
        "directory": str(verification.rendered.path),
        "within": verification.within,
        "notes": list(verification.notes),
        "tolerances": dict(TOLERANCES),
        "negligible_fractions_of_peak": dict(NEGLIGIBLE_FRACTIONS),
        "negligible_bytes": NEGLIGIBLE_BYTES,
        "stages": [
            {
                **trace.model_dump(mode="json"),
                "components": {
                    row.component: {
                        "planned_bytes": row.planned_bytes,
                        "traced_bytes": row.traced_bytes,
                        "ratio": row.ratio,
                        "within": row.within,
                    }
                    for row in rows[trace.stage]
                },
            }
            for trace in verification.traces
        ],
        "seconds": verification.seconds,
        "resident_bytes": verification.resident_bytes,
    }
