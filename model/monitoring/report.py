"""The plan's figures at the start of a run, and the same as measured at its end."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from vdsgen.spec.plan import Plan

MIB = 1024**2
SHOWN = ("forward", "backward", "bubble", "transfer", "reduce", "gather", "optimizer", "data", "other")
MESSAGES = ("transfer", "reduce", "gather")


def opening_text(plan: Plan, *, on_processor: bool) -> str:
    """What is expected of the run: speed, bubble, and each stage's seconds and memory."""
    predicted = plan.predicted
    lines = [
        f"Expected: {predicted.samples_per_second:.2f} samples/s, {_seconds(predicted.step_seconds)} a step, "
        f"{predicted.bubble_fraction:.1%} of it bubble, {predicted.communication_fraction:.1%} communication"
    ]
    for stage in plan.stages:
        first, stop = stage.layers
        peak = stage.measured_bytes(on_processor=on_processor)
        lines.append(
            f"  stage {stage.index}: layers {first} to {stop - 1}, a micro-batch "
            f"{_seconds(stage.forward_seconds)} forward, {_seconds(stage.backward_seconds)} backward, "
            f"peak {peak / MIB:.0f} MiB"
        )
    return "\n".join(lines)


def predicted_stages(plan: Plan, step_seconds: float) -> list[dict[str, float]]:
    """Seconds of a step by stage, as planned: a stage idles while others work.

    What is no computation of its own is bubble, communication, optimizer and data, which a plan gives for the
    average stage; here all of it stands under `elsewhere_seconds`.
    """
    micro_batches = plan.batch.gradient_accumulation_steps
    found = []
    for stage in plan.stages:
        forward, backward = (micro_batches * s for s in (stage.forward_seconds, stage.backward_seconds))
        elsewhere = max(0.0, step_seconds - forward - backward)
        found.append(
            {"forward_seconds": forward, "backward_seconds": backward, "elsewhere_seconds": elsewhere}
        )
    return found


def measured_stages(metrics: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """The median of each of a stage's figures over steps; [] for runs of versions that did not measure."""
    steps = [step["stages"] for step in metrics if step.get("stages")]
    if not steps:
        return []
    return [
        {
            f"{key}_seconds": statistics.median(step[stage][f"{key}_seconds"] for step in steps)
            for key in SHOWN
        }
        for stage in range(len(steps[0]))
    ]


def bubble_fraction(stages: Sequence[Mapping[str, float]]) -> float:
    """Share of all stages' seconds that they wait for each other."""
    total = sum(sum(stage.values()) for stage in stages)
    return sum(stage["bubble_seconds"] for stage in stages) / total if total else 0.0


def stage_table(
    predicted: Sequence[Mapping[str, float]], measured: Sequence[Mapping[str, float]]
) -> list[str]:
    """For people: a line a stage, planned / measured where the plan says."""
    lines = [
        f"  {'a step, by stage':22}{'forward':>17}{'backward':>17}{'bubble':>9}{'messages':>10}"
        f"{'optimizer':>11}{'data':>8}{'other':>8}"
    ]
    for index, (planned, found) in enumerate(zip(predicted, measured, strict=False)):
        pairs = [
            f"{_seconds(planned[f'{key}_seconds'])} / {_seconds(found[f'{key}_seconds'])}"
            for key in ("forward", "backward")
        ]
        messages = sum(found[f"{key}_seconds"] for key in MESSAGES)
        rest = [found[f"{key}_seconds"] for key in ("optimizer", "data", "other")]
        lines.append(
            f"  {f'stage {index}':22}{pairs[0]:>17}{pairs[1]:>17}{_seconds(found['bubble_seconds']):>9}"
            f"{_seconds(messages):>10}{_seconds(rest[0]):>11}{_seconds(rest[1]):>8}{_seconds(rest[2]):>8}"
        )
    return [
        *lines,
        "  forward and backward: predicted / measured; messages: transfer, reduction and gathering",
    ]


def _seconds(value: float) -> str:
    return (
        f"{value:.2f} s"
        if value >= 1
        else f"{value * 1e3:.0f} ms"
        if value >= 0.01
        else f"{value * 1e3:.1f} ms"
    )
