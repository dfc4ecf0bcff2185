"""A plan as tables: data that the command line prints and that PLAN.md can share."""

from __future__ import annotations

from typing import NamedTuple

from vdsgen.cost.settings import Settings
from vdsgen.cost.step_time import StepTime
from vdsgen.planner.baseline import Baseline
from vdsgen.planner.place import COMPONENTS
from vdsgen.planner.plan_settings import settings_of
from vdsgen.planner.saving import saving_rows
from vdsgen.planner.words import (
    average_words,
    checkpoint_words,
    communication_words,
    duration,
    offload_words,
    percent,
    rate,
    seconds,
)
from vdsgen.planner.workload import Workload
from vdsgen.spec.plan import Plan, Predicted, StageMemory
from vdsgen.spec.training import Training
from vdsgen.units import GIB


class Table(NamedTuple):
    """Rows of cells; the first row heads the columns where there are more than two."""

    title: str
    rows: tuple[tuple[str, ...], ...]


def step_time_of(plan: Plan, workload: Workload) -> StepTime:
    """The parts of a planned step."""
    boundaries = [stage.layers[0] for stage in plan.stages] + [plan.stages[-1].layers[1]]
    return workload.times.step(settings_of(plan), boundaries)


def choice_table(plan: Plan) -> Table:
    """What was chosen; the dimensions that are off are left out."""
    batch, precision, settings = plan.batch, plan.precision, settings_of(plan)
    dtype: str = precision.dtype
    if precision.gradient_accumulation_dtype != precision.dtype:
        dtype += f", gradients accumulated in {precision.gradient_accumulation_dtype}"
    if precision.initial_loss_scale is not None:
        dtype += f", loss scale from {precision.initial_loss_scale}, window {precision.loss_scale_window}"
    if precision.moments != "fp32":
        dtype += f", AdamW's moments in {precision.moments}"
    if precision.linear != "exact":
        dtype += f", linear layers of blocks in {precision.linear}"
    rows = [
        *_layout_rows(settings),
        ("ZeRO stage", str(plan.zero.stage)),
        (
            "batch",
            f"micro-batch {batch.micro_batch_size} x {batch.gradient_accumulation_steps} accumulation "
            f"steps x {settings.data_parallel_size} data ranks = {batch.global_batch_size}",
        ),
        ("activations", checkpoint_words(settings)),
        ("precision", dtype),
        ("offload", ", ".join(offload_words(settings))),
        ("communication", communication_words(settings)),
        ("average of weights (EMA)", average_words(settings)),
    ]
    return Table("Plan", tuple((name, value) for name, value in rows if value))


def _layout_rows(settings: Settings) -> list[tuple[str, str]]:
    """Stages x data ranks, and by themselves the ranks that share a layer."""
    stages, data = settings.pipeline_parallel_size, settings.data_parallel_size
    more = (
        ("tensor parallel ranks", settings.tensor_parallel_size),
        ("sequence parallel ranks", settings.sequence_parallel_size),
    )
    rows = [("pipeline stages x data ranks", f"{stages} x {data}")]
    return rows + [(name, str(size)) for name, size in more if size > 1]


def memory_table(plan: Plan, baseline: Baseline) -> Table:
    """GiB on each GPU, by stage and component; the naive baseline last."""
    head = ("GiB", "layers", *COMPONENTS, "peak", "capacity", "free")
    rows = [
        (
            f"stage {stage.index}",
            f"{stage.layers[0]}-{stage.layers[1] - 1}",
            *_memory_cells(stage.memory, stage.capacity_bytes),
        )
        for stage in plan.stages
    ]
    naive = ("naive", f"0-{plan.model.layers - 1}", *_memory_cells(baseline.memory, baseline.capacity_bytes))
    return Table("Memory of each GPU", (head, *rows, naive))


def host_table(plan: Plan) -> Table | None:
    """GiB that offload keeps of each rank outside its GPU; None where it keeps nothing."""
    if not any(stage.host_bytes or stage.nvme_bytes for stage in plan.stages):
        return None
    rows = tuple(
        (f"stage {stage.index}", f"{stage.host_bytes / GIB:.2f}", f"{stage.nvme_bytes / GIB:.2f}")
        for stage in plan.stages
    )
    return Table("Offloaded by each rank", (("GiB", "host memory", "NVMe"), *rows))


def _memory_cells(memory: StageMemory, capacity_bytes: int) -> tuple[str, ...]:
    parts = [getattr(memory, f"{name}_bytes") for name in COMPONENTS]
    values = [*parts, memory.peak_bytes, capacity_bytes, capacity_bytes - memory.peak_bytes]
    return tuple(f"{value / GIB:.2f}" for value in values)


def time_table(time: StepTime) -> Table:
    """Where the seconds of a step go, on the average stage."""
    parts = (
        ("forward and backward", time.compute_seconds),
        ("recomputation", time.recompute_seconds),
        ("pipeline bubble", time.bubble_seconds),
        ("tensor-parallel exchange", time.tensor_seconds),
        ("sequence-parallel exchange", time.sequence_seconds),
        ("stage transfers", time.transfer_seconds),
        ("gradient reduction", time.reduction_seconds),
        ("parameter gathers", time.gather_seconds),
        ("optimizer", time.optimizer_seconds),
        ("offload traffic", time.offload_seconds),
        ("waiting for data", time.data_seconds),
        ("fixed overhead", time.overhead_seconds),
    )
    rows = tuple(
        (name, seconds(value), percent(value / time.step_seconds)) for name, value in parts if value > 0
    )
    if not time.data_is_known:
        rows = (*rows, ("waiting for data", "not known", ""))
    head = ("", "time", "share")
    return Table("One step", (head, *rows, ("step", seconds(time.step_seconds), "")))


def speed_table(plan: Plan, training: Training) -> Table:
    """What the step time means for the run; what saving and failures add, where the lab says how fast and how
    often."""
    predicted = plan.predicted
    run_seconds = predicted.step_seconds * training.steps
    return Table(
        "Speed (predicted)",
        (
            ("samples/s", rate(predicted.samples_per_second)),
            ("run", f"{duration(run_seconds)} for {training.steps} steps"),
            *_dataset_rows(predicted),
            *_price_rows(predicted, run_seconds),
            ("bubble", percent(predicted.bubble_fraction)),
            ("communication", percent(predicted.communication_fraction)),
            ("model FLOP utilization", percent(predicted.model_flops_utilization)),
            *saving_rows(plan),
        ),
    )


def _dataset_rows(predicted: Predicted) -> list[tuple[str, str]]:
    if predicted.dataset is None:
        return []
    return [(f"{predicted.dataset.clips:,} videos", duration(predicted.dataset.seconds))]


def _price_rows(predicted: Predicted, run_seconds: float) -> list[tuple[str, str]]:
    price = predicted.price_per_hour
    if price is None:
        return []
    text = f"{price:,.2f} an hour, {price * run_seconds / 3600:,.2f} for the run"
    if predicted.dataset is not None and predicted.dataset.price is not None:
        text += f", {predicted.dataset.price:,.2f} for {predicted.dataset.clips:,} videos"
    return [("price", text)]
