"""How plans speak: bytes, seconds and settings in words, the same in reasons, errors and tables."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from vdsgen.units import GIB

if TYPE_CHECKING:
    from vdsgen.cost.settings import Settings
    from vdsgen.planner.place import Miss
    from vdsgen.spec.plan import PeakMoment


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


def layout_words(settings: Settings) -> str:
    """How ranks are shared: 'pipeline 2 x data 2', and what else is more than one."""
    sizes = (
        ("tensor", settings.tensor_parallel_size),
        ("sequence", settings.sequence_parallel_size),
    )
    more = "".join(f" x {name} {size}" for name, size in sizes if size > 1)
    return f"pipeline {settings.pipeline_parallel_size} x data {settings.data_parallel_size}{more}"


def checkpoint_words(settings: Settings) -> str:
    """Checkpoint intervals, of stages where they differ: 'checkpoint every block on stages 0-2, ...'."""
    plain, selective = settings.stage_plain_layers, settings.stage_selective_layers
    packed = f", packed as {settings.activation_compression}" if settings.packs else ""
    but = f" but in the last {_layers(plain)}" if any(plain) else ""
    if any(selective):
        but += (
            f", products kept in the {_layers(selective)} before"
            if any(plain)
            else (f", products kept in the last {_layers(selective)}")
        )
    if len(set(settings.stage_checkpoint_intervals)) < 2:
        return interval_words(settings.checkpoint_interval(0)) + but + packed
    told, first = [], 0
    for own, run in groupby(settings.stage_checkpoint_intervals):
        last = first + len(list(run)) - 1
        where = f"stages {first}-{last}" if last > first else f"stage {first}"
        told.append(f"{interval_words(own)} on {where}")
        first = last + 1
    return ", ".join(told) + but + packed


def _layers(by_stage: tuple[int, ...]) -> str:
    """'3 layers'; '3/0 layers' where stages differ."""
    counts = [str(count) for count in (by_stage if len(set(by_stage)) > 1 else by_stage[:1])]
    return f"{'/'.join(counts)} {'layer' if counts == ['1'] else 'layers'}"


def offload_words(settings: Settings) -> list[str]:
    """What is kept outside the GPUs, and where; nothing where all is on them."""
    where = {"cpu": "in host memory", "nvme": "on NVMe"}
    kept = {
        "optimizer states": settings.offload_optimizer,
        "parameters": settings.offload_parameters,
        "checkpointed activations": "cpu" if settings.offload_activations else "none",
    }
    return [f"{what} {where[place]}" for what, place in kept.items() if place != "none"]


def average_words(settings: Settings) -> str:
    """Where the average of the weights is kept; empty without one."""
    if settings.ema == "none":
        return ""
    beside = "beside the optimizer's states"
    where = "in host memory" if settings.ema == "cpu" else beside
    often = "" if settings.ema_every_steps == 1 else f", every {settings.ema_every_steps} steps"
    return f"4 bytes a trained parameter, {where}{often}"


def communication_words(settings: Settings) -> str:
    """How gradients and parameters travel where that is not the engine's own way; empty where it is."""
    parts = []
    if settings.communication_dtype is not None:
        parts.append(f"gradients reduced in {settings.communication_dtype}")
    if settings.gradient_compression != "none":
        parts.append(f"gradients sent as {settings.gradient_compression}")
    if settings.zero_quantized_weights:
        parts.append("weights gathered as int8")
    if settings.zero_quantized_gradients:
        parts.append("gradients reduced as int4")
    if settings.hierarchical_partition_size > 1:
        parts.append(f"parameters held once more by every {settings.hierarchical_partition_size} ranks")
    return ", ".join(parts)


def settings_words(settings: Settings, *, layout: bool = True) -> str:
    """A candidate in one line, with or without its layout."""
    parts = [
        layout_words(settings) if layout else "",
        f"ZeRO-{settings.zero_stage}",
        f"micro-batch {settings.micro_batch_size} x {settings.gradient_accumulation_steps} steps",
        checkpoint_words(settings),
        settings.dtype,
        *offload_words(settings),
        communication_words(settings),
    ]
    return ", ".join(part for part in parts if part)


def changed_words(before: Settings, after: Settings) -> str:
    """What `after` does otherwise than `before`; 'the same settings' where nothing."""
    parts = [
        layout_words(after) if layout_words(after) != layout_words(before) else "",
        f"ZeRO-{after.zero_stage}" if after.zero_stage != before.zero_stage else "",
        _batch_change(before, after),
        checkpoint_words(after) if checkpoint_words(after) != checkpoint_words(before) else "",
        after.dtype if after.dtype != before.dtype else "",
        _or_without(", ".join(offload_words(before)), ", ".join(offload_words(after)), "nothing offloaded"),
        _or_without(communication_words(before), communication_words(after), "gradients sent as they are"),
    ]
    return ", ".join(part for part in parts if part) or "the same settings"


def _batch_change(before: Settings, after: Settings) -> str:
    batch = (after.micro_batch_size, after.gradient_accumulation_steps)
    if batch == (before.micro_batch_size, before.gradient_accumulation_steps):
        return ""
    return f"micro-batch {batch[0]} x {batch[1]} steps"


def _or_without(before: str, after: str, without: str) -> str:
    return "" if before == after else after or without


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
    if miss.shortage is not None:
        short = miss.shortage
        return (
            f"needs {gib(short.needed_bytes)} of a node's {short.resource}, {gib(short.over_bytes)} more "
            f"than there is"
        )
    return (
        f"needs {gib(miss.memory.peak_bytes)} on stage {miss.stage}, {gib(miss.over_bytes)} more than "
        f"there is (most of it {miss.biggest_component})"
    )
