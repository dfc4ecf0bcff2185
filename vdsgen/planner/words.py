"""How plans speak: bytes, seconds and settings in words, the same in reasons, errors and tables."""

from __future__ import annotations

from itertools import groupby

from vdsgen.cost.settings import Settings
from vdsgen.planner.place import Miss
from vdsgen.spec.plan import PeakMoment
from vdsgen.units import GIB


def gib(number_bytes: float) -> str:
    """Two decimals: 10 MiB are seen."""
    return f"{number_bytes / GIB:.2f} GiB"


def seconds(value: float) -> str:
    """Three figures or so."""
    if value >= 100:
        return f"{value:.0f} s"
    if value >= 1:
        return f"{value:.2f} s"
    return f"{value * 1000:.3g} ms"


def rate(value: float) -> str:
    """Samples a second: three figures, without an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def duration(value: float) -> str:
    """A run's length: the two largest units."""
    minutes, hours, days = value / 60, value / 3600, value / 86400
    if value < 120:
        return seconds(value)
    if minutes < 120:
        return f"{minutes:.0f} min"
    if hours < 48:
        return f"{hours:.1f} h"
    return f"{days:.1f} days"


def percent(fraction: float) -> str:
    """One decimal below ten."""
    return f"{100 * fraction:.1f} %" if abs(fraction) < 0.1 else f"{100 * fraction:.0f} %"


def interval_words(interval: int) -> str:
    """A checkpoint interval."""
    if interval == 0:
        return "no checkpointing"
    return "checkpoint every block" if interval == 1 else f"checkpoint every {interval} blocks"


def checkpoint_words(interval: int, stage_intervals: tuple[int, ...] = ()) -> str:
    """Checkpoint intervals, of stages where they differ: 'checkpoint every block on stages 0-2, ...'."""
    if not stage_intervals:
        return interval_words(interval)
    told, first = [], 0
    for own, run in groupby(stage_intervals):
        last = first + len(list(run)) - 1
        where = f"stages {first}-{last}" if last > first else f"stage {first}"
        told.append(f"{interval_words(own)} on {where}")
        first = last + 1
    return ", ".join(told)


def settings_words(settings: Settings, *, layout: bool = True) -> str:
    """A candidate in one line, with or without its layout."""
    place = f"pipeline {settings.pipeline_parallel_size} x data {settings.data_parallel_size}, "
    return (
        f"{place if layout else ''}ZeRO-{settings.zero_stage}, micro-batch {settings.micro_batch_size} x "
        f"{settings.gradient_accumulation_steps} steps, "
        f"{checkpoint_words(settings.activation_checkpoint_interval, settings.stage_checkpoint_intervals)}, "
        f"{settings.dtype}"
    )


COMPONENT_WORDS = {
    "optimizer": "optimizer states",
    "activations": "stashed activations",
    "recomputation": "recomputed activations",
    "pipeline_buffers": "pipeline buffers",
    "communication": "communication buffers",
}
"""Where a component's name says too little."""


def moment_words(moment: PeakMoment) -> str:
    """When a stage peaks, and what weighs most then: 'in the backward of micro-batch 2 at layer 7; ...'."""
    when = {
        "ForwardPass": f"in the forward of micro-batch {moment.micro_batch}",
        "BackwardPass": f"in the backward of micro-batch {moment.micro_batch}",
        "ReduceGrads": "while gradients are reduced",
        "OptimizerStep": "in the optimizer step",
    }.get(moment.instruction, f"in {moment.instruction}")
    doing = "recomputing layer" if moment.recomputing else "at layer"
    where = "" if moment.layer is None else f", {doing} {moment.layer}"
    name = COMPONENT_WORDS.get(moment.component, moment.component)
    return f"{when}{where}; the largest part are {name} ({gib(moment.component_bytes)})"


def miss_words(miss: Miss) -> str:
    """What does not fit, where, and why."""
    return (
        f"needs {gib(miss.memory.peak_bytes)} on stage {miss.stage}, {gib(miss.over_bytes)} more than "
        f"there is (most of it {miss.biggest_component})"
    )
