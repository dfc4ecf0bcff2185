"""The closing summary: what was planned beside what was measured, on one screen."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vdsgen.model.configuration import Configuration
from vdsgen.model.curves import first_and_last
from vdsgen.model.memory import PeakMemory
from vdsgen.model.monitoring.alarms import read_alarms
from vdsgen.model.monitoring.report import bubble_fraction, measured_stages, predicted_stages, stage_table
from vdsgen.model.record import begun_under_this_plan
from vdsgen.model.saving_report import saving_figures, saving_lines
from vdsgen.model.waiting_report import waiting_figures, waiting_lines
from vdsgen.spec.run import ALARMS, Layout, read_json_object

MIB = 1024**2
EDITED = "  ds_config.json was changed after planning: what is predicted is the plan as it was"


@dataclass(frozen=True, slots=True)
class Artefacts:
    """Where the results lie; None: there is none."""

    loss_curve: Path | None
    sample_video: Path | None
    contact_sheet: Path | None
    checkpoint: Path | None
    consistency: Path | None = None
    """Figures on the sample video."""


def summarise(
    configuration: Configuration,
    metrics: Sequence[Mapping[str, Any]],
    artefacts: Artefacts,
    memory: PeakMemory,
    validation: Sequence[Mapping[str, Any]] = (),
    saves: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The contents of summary.json. `metrics` are all steps of the run, earlier parts of it included,
    `validation` all its held-out losses, and `saves` all its checkpoints. What is measured is of this plan's
    steps."""
    rendered = configuration.rendered
    plan, layout = rendered.plan, rendered.layout
    saving = rendered.experiment.training.saving
    section = rendered.ds_config.get("pipeline", {})
    begun = begun_under_this_plan(configuration.output)
    here = [m for m in metrics if m["step"] > begun] or metrics
    # The first steps allocate optimizer states, fill caches and measure memory.
    timed = here[memory.exact_steps :] or here
    peaks = _peaks(here[: memory.exact_steps] if memory.on_cpu else here)
    step_seconds = _typical_seconds(timed)
    losses = [m["loss"] for m in metrics if m["loss"] is not None]
    stages = measured_stages(timed)
    first, last = first_and_last(losses) if losses else (math.nan, math.nan)
    return {
        "schema_version": 1,
        "steps": metrics[-1]["step"],
        "plan": {
            "pool": plan.pool,
            "layout": str(layout),
            "world_size": layout.world_size,
            "micro_batch_size": configuration.micro_batch_size,
            "gradient_accumulation_steps": int(rendered.ds_config["gradient_accumulation_steps"]),
            "global_batch_size": configuration.global_batch_size,
            "activation_checkpoint_interval": int(section.get("activation_checkpoint_interval", 0)),
            "stage_checkpoint_intervals": list(section.get("stage_checkpoint_intervals") or []),
            "plain_layers": list(section.get("plain_layers") or []),
            "parameters": plan.model.parameters,
            "edited": _is_edited(configuration),
        },
        "predicted": {
            "step_seconds": plan.predicted.step_seconds,
            "samples_per_second": plan.predicted.samples_per_second,
            "peak_memory_bytes_by_stage": [
                stage.measured_bytes(on_processor=memory.on_cpu) for stage in plan.stages
            ],
            "bubble_fraction": plan.predicted.bubble_fraction,
            "stages": predicted_stages(plan, plan.predicted.step_seconds),
        },
        "measured": {
            "step_seconds": step_seconds,
            "samples_per_second": configuration.global_batch_size / step_seconds,
            "peak_memory_bytes_by_rank": peaks,
            "peak_memory_bytes_by_stage": _by_stage(peaks, layout),
            "memory_meaning": memory.meaning,
            "data_wait_fraction": sum(m["data_seconds"] for m in timed)
            / sum(m["step_seconds"] for m in timed),
            "data_wait": waiting_figures(timed),
            "cached": rendered.experiment.data.cache is not None,
            "bubble_fraction": bubble_fraction(stages),
            "stages": stages,
        },
        "saving": saving_figures(saves, metrics, plan, step_seconds, saving.interval_steps),
        "alarms": _alarms(configuration),
        "sample": None if artefacts.consistency is None else read_json_object(artefacts.consistency),
        "loss": {"first": _finite(first), "last": _finite(last), "steps_without": len(metrics) - len(losses)},
        **_held_out(validation),
        "files": {
            "rendered": str(rendered.path),
            "checkpoint": _text(artefacts.checkpoint),
            "loss_curve": _text(artefacts.loss_curve),
            "sample_video": _text(artefacts.sample_video),
            "contact_sheet": _text(artefacts.contact_sheet),
        },
    }


def _held_out(validation: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`validation`, where clips were held out: for each kind of weights the first and last loss, the best and
    its step."""
    found = {}
    for weights in dict.fromkeys(line["weights"] for line in validation):
        lines = [line for line in validation if line["weights"] == weights and line["loss"] is not None]
        if lines:
            best = min(lines, key=lambda line: line["loss"])
            found[weights] = {
                "first": lines[0]["loss"],
                "last": lines[-1]["loss"],
                "best": best["loss"],
                "best_step": best["step"],
                "quantiles": list(lines[-1]["quantiles"]),
                "last_by_quantile": list(lines[-1]["loss_by_quantile"]),
            }
    return {"validation": found} if found else {}


def _alarms(configuration: Configuration) -> dict[str, Any]:
    """How often each kind has sounded, and the last one's sentence."""
    found = read_alarms(configuration.output)
    last = found[-1] if found else None
    return {
        "counts": dict(Counter(str(alarm["kind"]) for alarm in found)),
        "last": None if last is None else f"{last['message']}: {last['remedy']}",
    }


def _is_edited(configuration: Configuration) -> bool:
    """Whether ds_config.json says something else than the plan that the figures were predicted for."""
    plan, layout = configuration.rendered.plan, configuration.rendered.layout
    planned = (
        plan.parallel.pipeline_parallel_size,
        plan.parallel.data_parallel_size,
        plan.parallel.tensor_parallel_size,
        plan.parallel.sequence_parallel_size,
        plan.zero.stage,
        plan.precision.dtype,
        plan.batch.micro_batch_size,
        plan.batch.global_batch_size,
    )
    return planned != (
        layout.pipeline_parallel_size,
        layout.data_parallel_size,
        layout.tensor_parallel_size,
        layout.sequence_parallel_size,
        layout.zero_stage,
        layout.dtype,
        configuration.micro_batch_size,
        configuration.global_batch_size,
    )


def _typical_seconds(metrics: Sequence[Mapping[str, Any]]) -> float:
    """The median step; where clips come in several sizes, the mean over them of each one's median, as
    often as each came."""
    by_bucket: dict[str | None, list[float]] = {}
    for step in metrics:
        by_bucket.setdefault(step.get("bucket"), []).append(step["step_seconds"])
    return sum(len(seconds) * statistics.median(seconds) for seconds in by_bucket.values()) / len(metrics)


def _peaks(metrics: Sequence[Mapping[str, Any]]) -> list[int]:
    """The highest peak of each rank."""
    return [max(peaks) for peaks in zip(*(m["peak_memory_bytes"] for m in metrics), strict=True)]


def _by_stage(by_rank: Sequence[int], layout: Layout) -> list[int]:
    """The highest rank of each stage."""
    stages = range(layout.pipeline_parallel_size)
    return [
        max(peak for rank, peak in enumerate(by_rank) if layout.stage_of(rank) == stage) for stage in stages
    ]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def summary_text(summary: Mapping[str, Any]) -> str:
    """The same for people."""
    plan, predicted, measured = summary["plan"], summary["predicted"], summary["measured"]
    rows = [
        ("step time", predicted["step_seconds"], measured["step_seconds"], "s"),
        ("samples a second", predicted["samples_per_second"], measured["samples_per_second"], ""),
    ]
    planned_peaks, peaks = (part["peak_memory_bytes_by_stage"] for part in (predicted, measured))
    rows += [
        (f"peak memory, stage {stage}", planned / MIB, peak / MIB, "MiB")
        for stage, (planned, peak) in enumerate(zip(planned_peaks, peaks, strict=False))
    ]
    lines = [
        f"Trained to step {summary['steps']}: loss {_shown(summary['loss']['first'])} -> "
        f"{_shown(summary['loss']['last'])} (means of the first and last tenth)",
        *(_held_out_line(weights, found) for weights, found in summary.get("validation", {}).items()),
        "",
        f"Plan      {plan['pool']}: {plan['layout']}",
        f"          micro-batch {plan['micro_batch_size']}, "
        f"accumulation {plan['gradient_accumulation_steps']}, global batch {plan['global_batch_size']}, "
        + _checkpointing(plan),
        "",
        f"{'':24}{'predicted':>12}{'measured':>12}{'measured / predicted':>24}",
        *(_row(*row) for row in rows),
        f"  memory measured: {measured['memory_meaning']}; predicted: without the reserve",
        *([EDITED] if plan["edited"] else []),
        *waiting_lines(measured["data_wait_fraction"], measured["data_wait"], cached=measured["cached"]),
        *_stages(predicted, measured),
        *saving_lines(summary["saving"]),
        *_alarm_lines(summary["alarms"]),
        *_sample_lines(summary["sample"]),
        "",
        *(f"{name:14}{summary['files'][key]}" for name, key in FILES if summary["files"][key] is not None),
    ]
    return "\n".join(lines)


def _held_out_line(weights: str, found: Mapping[str, Any]) -> str:
    of = "" if weights == "trained" else f" of the {weights.upper()} weights"
    return (
        f"Held-out loss{of}: {found['first']:.4f} -> {found['last']:.4f}, "
        f"best {found['best']:.4f} at step {found['best_step']}"
    )


FILES = (
    ("Loss curve", "loss_curve"),
    ("Sample video", "sample_video"),
    ("Its frames", "contact_sheet"),
    ("Checkpoint", "checkpoint"),
    ("Rendered plan", "rendered"),
)


def _stages(predicted: Mapping[str, Any], measured: Mapping[str, Any]) -> list[str]:
    if not measured["stages"]:
        return []
    planned, found = (part["bubble_fraction"] for part in (predicted, measured))
    bubbles = f"Bubble: {planned:.1%} of the step predicted, {found:.1%} measured"
    return [bubbles, *stage_table(predicted["stages"], measured["stages"])]


def _alarm_lines(alarms: Mapping[str, Any]) -> list[str]:
    if not alarms["counts"]:
        return []
    counts = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in alarms["counts"].items())
    return [f"Alarms: {counts} ({ALARMS}); the last: {alarms['last']}"]


def _sample_lines(sample: Mapping[str, Any] | None) -> list[str]:
    if sample is None or "warping_error" not in sample:
        return []
    return [
        f"Sample video, frame to frame: temporal flickering {sample['temporal_flickering']:.4f} (1: none), "
        f"warping error {sample['warping_error']:.5f}, correlation {sample['frame_correlation']:.4f}, "
        f"motion {sample['motion_pixels']:.2f} pixels ({sample['dtype']})"
    ]


def _checkpointing(plan: Mapping[str, Any]) -> str:
    plain = plan.get("plain_layers")
    but = f", but in the last {plain} layers of each stage" if plain else ""
    if plan["stage_checkpoint_intervals"]:
        return f"checkpoint every {plan['stage_checkpoint_intervals']} blocks, by stage (0: none){but}"
    interval = plan["activation_checkpoint_interval"]
    return f"checkpoint every {interval} blocks{but}" if interval else "no activation checkpointing"


def _row(name: str, planned: float, found: float, unit: str) -> str:
    ratio = f"{found / planned:.2f}" if planned else "-"
    return f"  {name:22}{_number(planned, unit):>12}{_number(found, unit):>12}{ratio:>24}"


def _number(value: float, unit: str) -> str:
    digits = 0 if value >= 100 else 2 if value >= 1 else 3
    return f"{value:.{digits}f} {unit}".rstrip()


def _shown(loss: float | None) -> str:
    return "none" if loss is None else f"{loss:.4f}"
