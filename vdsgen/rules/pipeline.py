"""Rules on pipeline stages and checkpoint segments."""

from __future__ import annotations

from vdsgen.rules.facts import Facts
from vdsgen.rules.keys import below, named, present, removal, setting
from vdsgen.rules.rule import Change, Rule

STAGE = "/zero_optimization/stage"
INTERVAL = "/pipeline/activation_checkpoint_interval"
OVERLAP = "/zero_optimization/overlap_comm"
UNREAD = below("/pipeline", "stages partition seed_layers")
PARTITION_METHODS = ("uniform", "parameters")


def _stages_divide_world(facts: Facts) -> str | None:
    stages, world = facts.pipeline_parallel_size, facts.world_size
    if stages is None or world is None or (stages > 0 and world % stages == 0):
        return None
    return f"{stages} pipeline stages do not divide {world} ranks"


def _ranks_are_used(facts: Facts) -> str | None:
    stages, data, world = facts.pipeline_parallel_size, facts.data_parallel_size, facts.world_size
    if stages is None or data is None or world is None:
        return None
    tensor, sequence = facts.tensor_parallel_size or 1, facts.sequence_parallel_size or 1
    ranks = stages * data * tensor * sequence
    if ranks == world:
        return None
    text = f"pipeline {stages} x data {data}"
    for name, size in (("tensor", tensor), ("sequence", sequence)):
        text += f" x {name} {size}" if size > 1 else ""
    return f"{text} is {ranks} ranks, the job has {world}"


def _zero_with_stages(facts: Facts) -> str | None:
    zero = facts.zero_stage
    if zero is None or zero < 2 or not facts.is_pipeline:
        return None
    stages = facts.pipeline_parallel_size
    text = "a PipelineModule" if stages in (None, 1) else f"{stages} pipeline stages"
    return f"ZeRO stage {zero} with {text}"


def _enough_blocks(facts: Facts) -> str | None:
    stages, blocks = facts.pipeline_parallel_size, facts.blocks
    if stages is None or blocks is None or blocks >= stages:
        return None
    return f"{stages} pipeline stages, but the model has {blocks} blocks"


def _every_stage_has_a_block(facts: Facts) -> str | None:
    if facts.stage_blocks is None or min(facts.stage_blocks) > 0:
        return None
    return f"stage {facts.stage_blocks.index(0)} holds no block"


def _interval_within_blocks(facts: Facts) -> str | None:
    interval, blocks = facts.activation_checkpoint_interval, facts.blocks
    if interval is None or blocks is None or interval <= blocks:
        return None
    return f"activation checkpoint interval {interval}, but the model has {blocks} blocks"


def _shorter_interval(facts: Facts) -> tuple[Change, ...]:
    return ((INTERVAL, facts.blocks),)


def _overlap_in_pipeline(facts: Facts) -> str | None:
    if not facts.zero.overlap_comm or not facts.is_pipeline or facts.uses_bf16_optimizer is not False:
        return None
    return (
        f"overlap_comm is true at ZeRO stage {facts.zero_stage} in a pipeline" if facts.zero_stage else None
    )


def _unmanaged_accumulation(facts: Facts) -> str | None:
    if facts.pipeline.managed_gradient_accumulation is not False or not facts.is_pipeline:
        return None
    return "managed_gradient_accumulation is false in a pipeline"


def _unmanaged_overlap(facts: Facts) -> str | None:
    managed, stage = facts.pipeline.managed_gradient_accumulation, facts.zero_stage
    if managed is not False or stage is None or stage >= 2 or not facts.zero.overlap_comm:
        return None
    return f"managed_gradient_accumulation is false and overlap_comm true at ZeRO stage {stage}"


def _partition_method(facts: Facts) -> str | None:
    method = facts.pipeline.partition_method
    if method is None or method in PARTITION_METHODS or method.startswith("type:"):
        return None
    return f"partition method {method!r}"


def _dual_pipe_filled(facts: Facts) -> str | None:
    stages, steps = facts.pipeline_parallel_size, facts.gradient_accumulation_steps
    if not facts.pipeline.dual_pipe_v or stages is None or steps is None or steps >= 2 * stages:
        return None
    return f"DualPipeV on {stages} ranks with {steps} gradient accumulation steps"


def _unread_keys(facts: Facts) -> str | None:
    found = present(facts, UNREAD)
    if not found or facts.pipeline.trainer_reads_section is not False:
        return None
    return f"nothing reads {named(found)}"


def _section_without_pipeline(facts: Facts) -> str | None:
    if facts.pipeline.is_pipeline is not False or facts.pipeline.trainer_reads_section is not False:
        return None
    return "a pipeline section, but no PipelineModule" if present(facts, ("/pipeline",)) else None


def _sums_in_bf16(facts: Facts) -> str | None:
    steps = facts.gradient_accumulation_steps
    if facts.zero_stage != 0 or facts.dtype != "bf16" or steps is None or steps < 2 or not facts.is_pipeline:
        return None
    return f"a pipeline in bf16 without ZeRO adds up {steps} micro-batches in bf16"


RULES = (
    Rule(
        id="pipeline-divides-world",
        summary="The number of pipeline stages divides the number of ranks.",
        check=_stages_divide_world,
        remedy="use a number of stages that divides the number of ranks",
        source="runtime/pipe/module.py:176",
        engine_message="must divide distributed world size",
    ),
    Rule(
        id="layout-fills-world",
        summary="Pipeline stages times data, tensor and sequence parallel ranks is the number of ranks.",
        check=_ranks_are_used,
        remedy="make the product of the parallel sizes the number of ranks that are started",
        source="runtime/pipe/topology.py:295",
        engine_message="Invalid Grid",
    ),
    Rule(
        id="pipeline-zero",
        summary="ZeRO stages 2 and 3 do not work with pipeline stages.",
        check=_zero_with_stages,
        remedy="use ZeRO 0 or 1 with a pipeline, or pipeline parallel size 1",
        source="runtime/pipe/engine.py:76",
        engine_message="ZeRO-2 and ZeRO-3 are incompatible with pipeline parallelism",
        keys=(STAGE,),
        fix=setting(STAGE, 1),
    ),
    Rule(
        id="pipeline-enough-blocks",
        summary="There are at least as many blocks as pipeline stages.",
        check=_enough_blocks,
        remedy="use at most as many stages as the model has blocks",
        source="model/pipeline.py, check_partition",
        severity="ours",
        keys=("/pipeline/stages",),
    ),
    Rule(
        id="stage-has-block",
        summary=(
            "Every pipeline stage holds a block: a stage without one would hand tensors on that get no "
            "gradient, which the engine asserts."
        ),
        check=_every_stage_has_a_block,
        remedy="move a boundary of pipeline.partition so that the stage gets a block",
        source="runtime/pipe/engine.py:1107",
        severity="ours",
        keys=("/pipeline/partition",),
    ),
    Rule(
        id="interval-within-blocks",
        summary="A checkpoint segment is not longer than the model: a longer one is cut to it.",
        check=_interval_within_blocks,
        remedy="use an interval of at most the number of blocks, or 0 for no checkpointing",
        source="runtime/pipe/module.py:382",
        severity="overridden",
        keys=(INTERVAL,),
        fix=_shorter_interval,
    ),
    Rule(
        id="pipeline-bf16-sums",
        summary="A bf16 pipeline without ZeRO adds gradients up in bf16, which loses small ones.",
        check=_sums_in_bf16,
        remedy="use ZeRO stage 1 with data_types.grad_accum_dtype fp32",
        source="runtime/engine.py:2316",
        severity="hurts",
        keys=(STAGE, "/bf16/enabled"),
        fix=lambda facts: ((STAGE, 1), ("/data_types/grad_accum_dtype", "fp32")),  # noqa: ARG005
    ),
    Rule(
        id="pipeline-overlap-comm",
        summary="Pipelines reduce gradients after the last micro-batch: overlap_comm is switched off.",
        check=_overlap_in_pipeline,
        remedy="set overlap_comm to false",
        source="runtime/engine.py:2663",
        severity="overridden",
        keys=(OVERLAP,),
        fix=setting(OVERLAP, False),
        needs=("zero",),
    ),
    Rule(
        id="pipeline-managed-accumulation",
        summary="A pipeline counts its micro-batches itself.",
        check=_unmanaged_accumulation,
        remedy="leave managed_gradient_accumulation at true",
        source="runtime/engine.py:2033",
        engine_message="managed_gradient_accumulation=False is not supported with pipeline parallelism",
        keys=("/managed_gradient_accumulation",),
        fix=removal("/managed_gradient_accumulation"),
        needs=("pipeline",),
    ),
    Rule(
        id="managed-accumulation-overlap",
        summary="Without managed gradient accumulation, overlap_comm needs ZeRO stage 2.",
        check=_unmanaged_overlap,
        remedy="set overlap_comm to false, or leave managed_gradient_accumulation at true",
        source="runtime/engine.py:2031",
        engine_message="managed_gradient_accumulation=False supports ZeRO overlap_comm only",
        keys=(OVERLAP, "/managed_gradient_accumulation"),
        fix=setting(OVERLAP, False),
        needs=("pipeline",),
    ),
    Rule(
        id="pipeline-partition-method",
        summary="PipelineModule partitions by uniform, parameters or type:regex; profile does not exist.",
        check=_partition_method,
        remedy="use uniform, parameters or type:regex",
        source="runtime/pipe/module.py:419",
        engine_message="not implemented",
        needs=("pipeline",),
    ),
    Rule(
        id="dual-pipe-filled",
        summary="DualPipeV needs twice as many micro-batches a step as ranks in its pipeline.",
        check=_dual_pipe_filled,
        remedy="raise gradient_accumulation_steps",
        source="runtime/pipe/dualpipev.py:102",
        engine_message="DualPipeV needs gradient_accumulation_steps >= 2",
        keys=("/gradient_accumulation_steps",),
        needs=("pipeline",),
    ),
    Rule(
        id="pipeline-unread-keys",
        summary=(
            "pipeline.stages, partition and seed_layers are arguments of PipelineModule: the engine does not "
            "read them from the file."
        ),
        check=_unread_keys,
        remedy="give them to PipelineModule in the training code, and take them out here",
        source="runtime/config.py:275-277",
        severity="ignored",
        keys=UNREAD,
        fix=removal(*UNREAD),
        needs=("given", "pipeline"),
    ),
    Rule(
        id="pipeline-section-unused",
        summary="The pipeline section is read by the engine of a PipelineModule only.",
        check=_section_without_pipeline,
        remedy="take the section out, or make the model a PipelineModule",
        source="runtime/pipe/engine.py:201-218",
        severity="ignored",
        keys=("/pipeline",),
        fix=removal("/pipeline"),
        needs=("given", "pipeline"),
    ),
)
