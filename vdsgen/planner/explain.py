"""Why a plan won, in numbers."""

from __future__ import annotations

from itertools import pairwise
from math import isqrt

from vdsgen.cost.settings import Settings
from vdsgen.planner.communication_reason import communication_reason
from vdsgen.planner.compare import compared, outcome_words, what_if
from vdsgen.planner.explain_offload import offload_reasons
from vdsgen.planner.linear_reason import linear_reason
from vdsgen.planner.numerics import accumulation_dtype, dtypes
from vdsgen.planner.place import Placed, place
from vdsgen.planner.search import Candidate, Search
from vdsgen.planner.sharing_reasons import sharing_reasons
from vdsgen.planner.space import Layout
from vdsgen.planner.words import (
    checkpoint_words,
    gib,
    miss_words,
    moment_words,
    percent,
    seconds,
    settings_words,
)
from vdsgen.planner.workload import Workload


def reasons(workload: Workload, found: Search, winner: Candidate) -> tuple[str, ...]:
    """One sentence each: the layout, what ranks share, ZeRO, checkpointing, micro-batch, precision, and what
    binds."""
    return tuple(
        sentence
        for sentence in (
            *_layout_reasons(workload, found, winner),
            *sharing_reasons(workload, winner),
            _zero_reason(workload, winner),
            *_checkpoint_reasons(workload, winner),
            *offload_reasons(workload, winner),
            communication_reason(workload, winner),
            _micro_batch_reason(workload, winner),
            _precision_reason(workload, winner),
            linear_reason(workload, winner),
            _memory_reason(workload, winner),
            _sizes_reason(workload, winner),
        )
        if sentence
    )


def _layout_reasons(workload: Workload, found: Search, winner: Candidate) -> list[str]:
    chosen = winner.settings.pipeline_parallel_size
    pins = workload.experiment.constraints
    lines = []
    if pins.pipeline_parallel_size is not None or pins.data_parallel_size is not None:
        lines.append(f"Pipeline {chosen} x data {winner.settings.data_parallel_size} is pinned.")
    told = {chosen}
    for layout in found.layouts:
        stages = layout.pipeline_parallel_size
        if stages in told:
            continue
        told.add(stages)
        fitting = found.fitting.get(stages)
        if fitting is not None and fitting.fastest is not None:
            settings = fitting.fastest.settings
            best = settings_words(settings, layout=False)
            lines.append(f"{_name(settings)} at its best ({best}) {compared(fitting.fastest, winner)}.")
            continue
        tally = found.out_of_memory.get(stages)
        if tally is not None and tally.nearest_miss is not None:
            settings = tally.nearest_miss.settings
            best = settings_words(settings, layout=False)
            lines.append(
                f"{_name(settings)} fits in no way: at best ({best}) it {miss_words(tally.nearest_miss)}."
            )
    used, there = winner.settings.world_size, workload.pool.world_size
    if used < there:
        whole = [tally.fastest for tally in found.fitting.values() if tally.fastest is not None]
        if whole and whole[0].settings.world_size == there:
            fastest = compared(min(whole, key=lambda one: one.time.step_seconds), winner)
            lines.append(f"{used} of {there} GPUs are used: one step on all of them {fastest}.")
        else:
            lines.append(
                f"{used} of {there} GPUs are used: pins, or a global batch of "
                f"{workload.experiment.training.global_batch_size}, leave too little work for more."
            )
    return lines


def _name(settings: Settings) -> str:
    """Its pipeline and data ranks; what else it is follows in words."""
    return str(Layout(settings.pipeline_parallel_size, settings.data_parallel_size)).capitalize()


def _zero_reason(workload: Workload, winner: Candidate) -> str:
    stage = winner.settings.zero_stage
    if workload.experiment.constraints.zero_stage is not None:
        return f"ZeRO-{stage} is pinned."
    if stage == 0:
        return "ZeRO-0: model states fit unsharded, which communicates least."
    less = _less_zero(workload, winner.settings)
    outcome = what_if(workload, less, winner.settings)
    return f"ZeRO-{stage} rather than ZeRO-{stage - 1}, which {outcome_words(outcome, winner)}."


def _less_zero(workload: Workload, settings: Settings) -> Settings:
    stage = settings.zero_stage - 1
    if stage == 0:
        settings = settings._replace(offload_optimizer="none")
    if stage < 3:
        settings = settings._replace(offload_parameters="none")
    accumulation = accumulation_dtype(workload.experiment.training, settings.dtype, stage)
    return settings._replace(zero_stage=stage, gradient_accumulation_dtype=accumulation)


def _checkpoint_reasons(workload: Workload, winner: Candidate) -> list[str]:
    settings = winner.settings
    interval = settings.activation_checkpoint_interval
    pinned = workload.experiment.constraints.activation_checkpoint_interval is not None
    if not settings.checkpoints:
        spared = sum(stage.forward_seconds for stage in winner.time.stages) / len(winner.time.stages)
        spared *= settings.gradient_accumulation_steps
        return [
            "No checkpointing is pinned."
            if pinned
            else f"No checkpointing: activations fit, and recomputing them would add about "
            f"{seconds(spared)} a step ({percent(spared / winner.time.step_seconds)})."
        ]
    without = what_if(workload, settings.with_intervals((0,) * settings.pipeline_parallel_size), settings)
    words = checkpoint_words(settings)
    lines = [
        f"{words.capitalize()}{' (pinned)' if pinned else ''}: recomputation takes "
        f"{percent(winner.time.recompute_seconds / winner.time.step_seconds)} of the step; without "
        f"checkpointing the plan {outcome_words(without, winner)}."
    ]
    if settings.stage_selective_layers:
        whole = what_if(workload, settings.with_interval(interval), settings)
        lines.append(
            f"Layers that keep what matrix products and attention put out recompute the cheap rest alone; "
            f"with every layer recomputed whole the plan {outcome_words(whole, winner)}."
        )
        return lines
    rule_of_thumb = max(1, isqrt(max(stop - start for start, stop in pairwise(winner.placed.partition))))
    if settings.stage_plain_layers:
        if all(settings.stage_plain_layers):
            everywhere = what_if(workload, settings.with_interval(interval), settings)
            lines.append(
                f"With every layer checkpointed the plan {outcome_words(everywhere, winner)}: memory that is "
                "free holds what the last layers save."
            )
    elif not pinned and not settings.stage_checkpoint_intervals and rule_of_thumb != interval:
        other = place(workload, settings._replace(activation_checkpoint_interval=rule_of_thumb))
        peak = other.peak_bytes if isinstance(other, Placed) else other.memory.peak_bytes
        lines.append(
            f"The square-root rule would checkpoint every {rule_of_thumb} blocks and need {gib(peak)} on the "
            f"fullest stage; this plan needs {gib(winner.placed.peak_bytes)}."
        )
    return lines


def _micro_batch_reason(workload: Workload, winner: Candidate) -> str:
    settings = winner.settings
    if settings.gradient_accumulation_steps == 1:
        return ""
    pins = workload.experiment.constraints
    if pins.micro_batch_size is not None or pins.gradient_accumulation_steps is not None:
        return ""
    steps = settings.gradient_accumulation_steps
    if settings.micro_batch_size == workload.profile.most_samples:
        return (
            f"Micro-batch {settings.micro_batch_size}: layers loop over samples, more at once are no faster."
        )
    factor = next(value for value in range(2, steps + 1) if steps % value == 0)
    larger = settings._replace(
        micro_batch_size=settings.micro_batch_size * factor,
        gradient_accumulation_steps=steps // factor,
    )
    outcome = what_if(workload, larger, settings)
    return (
        f"Micro-batch {settings.micro_batch_size}: one of {larger.micro_batch_size} "
        f"{outcome_words(outcome, winner)}."
    )


def _precision_reason(workload: Workload, winner: Candidate) -> str:
    settings, training = winner.settings, workload.experiment.training
    accumulated = (
        f", gradients accumulated in {settings.gradient_accumulation_dtype}"
        if settings.gradient_accumulation_dtype != settings.dtype
        else ""
    )
    if training.precision != "auto":
        return f"{settings.dtype} is pinned{accumulated}."
    if settings.dtype == "bf16":
        return f"bf16: {workload.gpu_name} has it, and it needs no loss scale{accumulated}."
    if settings.dtype == "fp16":
        return f"fp16: {workload.gpu_name} has no bf16; loss scaling starts low, as video needs{accumulated}."
    if dtypes(training, workload.pool) == ("fp32",):
        return f"fp32: {workload.gpu_name} has no half precision."
    return f"fp32: half precision is no faster on {workload.gpu_name}."


def _memory_reason(workload: Workload, winner: Candidate) -> str:
    settings = winner.settings
    stage, start, stop = fullest_stage(workload, winner)
    capacity = workload.capacity_of(settings, stage)
    peak = workload.memory(settings, stage, start, stop).peak_bytes
    moment = workload.timeline(settings, stage, start, stop).peak().spec()
    several = settings.pipeline_parallel_size > 1
    which = f"The fullest stage, {stage}," if several else "The fullest stage"
    return (
        f"{which} needs {gib(peak)} of {gib(capacity)}; {gib(capacity - peak)} stay free. "
        f"It peaks {moment_words(moment)}."
    )


def _sizes_reason(workload: Workload, winner: Candidate) -> str:
    if len(workload.sizes) == 1:
        return ""
    largest = workload.largest_size(winner.settings, *fullest_stage(workload, winner))
    data = workload.experiment.data
    unit = "step" if data.bucket_every == "step" else "micro-batch"
    often, times = "each as often as the others", "times are means over all"
    if data.bucketing == "nearest":
        often, times = "each as often as it has clips", "times are means as if each had equally many"
    return (
        f"Clips come in {len(workload.sizes)} sizes, one a {unit} and {often}: memory is "
        f"decided by {largest} (frames x height x width), {times}."
    )


def fullest_stage(workload: Workload, winner: Candidate) -> tuple[int, int, int]:
    """Its index, its first layer, and one past its last; of the stage that leaves least free."""
    settings = winner.settings
    stages = [(stage, *bounds) for stage, bounds in enumerate(pairwise(winner.placed.partition))]

    def over_bytes(stage: tuple[int, int, int]) -> int:
        return workload.memory(settings, *stage).peak_bytes - workload.capacity_of(settings, stage[0])

    return max(stages, key=over_bytes)
