"""What templates see: plain values only, so that nothing in them can be called."""

from __future__ import annotations

from typing import Any

from vdsgen.render.engine_config import engine_config
from vdsgen.render.formats import gib, seconds
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.lab import Gpu, Pool
from vdsgen.spec.plan import Plan, Stage

CPU = "cpu"
"""The catalogue's name for a processor."""


def template_context(plan: Plan, experiment: Experiment) -> dict[str, Any]:
    """The same for every template: `plan` and `experiment` as in their files, `engine` (the sections of
    ds_config.json), `launch` (nodes, ranks, hosts) and `tables` (rows for PLAN.md)."""
    pool = plan.inputs.pool
    return {
        "plan": plan.model_dump(mode="json"),
        "experiment": experiment.model_dump(mode="json"),
        "engine": engine_config(plan, experiment),
        "launch": {
            "nodes": pool.nodes,
            "ranks_per_node": pool.gpus_per_node,
            "hosts": list(pool.hosts) if pool.hosts is not None else [],
            "on_cpu": is_cpu(pool),
        },
        "tables": {
            "choice": choice_rows(plan),
            "memory": memory_rows(plan),
            "time": time_rows(plan),
        },
        "peak": peak_facts(plan),
    }


def is_cpu(pool: Pool) -> bool:
    """Whether the ranks run on processors: there are no devices to choose between."""
    return pool.gpu.memory_gib is None if isinstance(pool.gpu, Gpu) else pool.gpu == CPU


def peak_facts(plan: Plan) -> dict[str, Any]:
    """The stage that needs most of its capacity."""
    fullest = max(plan.stages, key=lambda stage: stage.memory.peak_bytes / max(1, stage.capacity_bytes))
    return {
        "stage": fullest.index,
        "bytes": fullest.memory.peak_bytes,
        "capacity_bytes": fullest.capacity_bytes,
        "headroom_bytes": fullest.capacity_bytes - fullest.memory.peak_bytes,
    }


def choice_rows(plan: Plan) -> list[list[str]]:
    """The settings that a reviewer looks for first."""
    parallel, batch, precision = plan.parallel, plan.batch, plan.precision
    interval = plan.activation_checkpointing.interval
    dtype: str = precision.dtype
    if precision.gradient_accumulation_dtype != dtype:
        dtype = f"{dtype}, gradients accumulated in {precision.gradient_accumulation_dtype}"
    if precision.initial_loss_scale is not None:
        dtype += f", loss scale from {precision.initial_loss_scale}, window {precision.loss_scale_window}"
    return [
        ["setting", "value"],
        ["GPUs", f"{parallel.world_size}"],
        [
            "pipeline stages x data ranks",
            f"{parallel.pipeline_parallel_size} x {parallel.data_parallel_size}",
        ],
        ["ZeRO stage", f"{plan.zero.stage}"],
        [
            "micro-batch x accumulation x data ranks = global batch",
            f"{batch.micro_batch_size} x {batch.gradient_accumulation_steps} x {parallel.data_parallel_size}"
            f" = {batch.global_batch_size}",
        ],
        ["activation checkpoint", _interval_text(interval)],
        ["precision", dtype],
    ]


def _interval_text(interval: int) -> str:
    return "none" if interval == 0 else "every block" if interval == 1 else f"every {interval} blocks"


def memory_rows(plan: Plan) -> list[list[str]]:
    """GiB on each GPU, a column a stage: what is held, what comes on top, the sum, the capacity."""
    rows = [["GiB on each GPU", *(f"stage {stage.index}" for stage in plan.stages)]]
    rows.append(["layers", *(f"{stage.layers[0]} to {stage.layers[1] - 1}" for stage in plan.stages)])
    for label, key in (
        ("parameters", "parameters_bytes"),
        ("gradients", "gradients_bytes"),
        ("optimizer states", "optimizer_bytes"),
        ("activations", "activations_bytes"),
        ("communication buffers", "communication_bytes"),
        ("workspace of the optimizer step", "workspace_bytes"),
        ("reserve (context, fragmentation)", "reserve_bytes"),
        ("**peak**", "peak_bytes"),
    ):
        rows.append([label, *(gib(getattr(stage.memory, key)) for stage in plan.stages)])
    rows.append(["capacity", *(gib(stage.capacity_bytes) for stage in plan.stages)])
    rows.append(["headroom", *(gib(_headroom_bytes(stage)) for stage in plan.stages)])
    return rows


def _headroom_bytes(stage: Stage) -> int:
    return stage.capacity_bytes - stage.memory.peak_bytes


def time_rows(plan: Plan) -> list[list[str]]:
    """One micro-batch, a column a stage."""
    return [
        ["one micro-batch", *(f"stage {stage.index}" for stage in plan.stages)],
        ["forward", *(seconds(stage.forward_seconds) for stage in plan.stages)],
        ["backward, with recomputation", *(seconds(stage.backward_seconds) for stage in plan.stages)],
    ]
