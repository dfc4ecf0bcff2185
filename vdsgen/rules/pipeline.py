"""Rules on pipeline stages and checkpoint segments."""

from __future__ import annotations

from vdsgen.rules.facts import Facts
from vdsgen.rules.rule import Rule

VERSIONS = "0.19.8"


def _stages_divide_world(facts: Facts) -> str | None:
    stages, world = facts.pipeline_parallel_size, facts.world_size
    if stages is None or world is None or (stages > 0 and world % stages == 0):
        return None
    return f"{stages} pipeline stages do not divide {world} ranks"


def _ranks_are_used(facts: Facts) -> str | None:
    stages, data, world = facts.pipeline_parallel_size, facts.data_parallel_size, facts.world_size
    if stages is None or data is None or world is None or stages * data == world:
        return None
    return f"pipeline {stages} x data {data} is {stages * data} ranks, the job has {world}"


def _zero_with_stages(facts: Facts) -> str | None:
    stages, zero = facts.pipeline_parallel_size, facts.zero_stage
    if stages is None or zero is None or stages == 1 or zero < 2:
        return None
    return f"ZeRO stage {zero} with {stages} pipeline stages"


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


RULES = (
    Rule(
        id="pipeline-divides-world",
        summary="The number of pipeline stages divides the number of ranks.",
        check=_stages_divide_world,
        remedy="use a number of stages that divides the number of ranks",
        source="runtime/pipe/module.py:176",
        versions=VERSIONS,
        engine_message="must divide distributed world size",
    ),
    Rule(
        id="layout-fills-world",
        summary="Pipeline stages times data-parallel ranks is the number of ranks.",
        check=_ranks_are_used,
        remedy="make pipeline parallel size x data parallel size the number of ranks that are started",
        source="runtime/pipe/topology.py:232",
        versions=VERSIONS,
    ),
    Rule(
        id="pipeline-zero",
        summary="ZeRO stages 2 and 3 do not work with pipeline stages.",
        check=_zero_with_stages,
        remedy="use ZeRO 0 or 1 with a pipeline, or pipeline parallel size 1",
        source="runtime/pipe/engine.py:76",
        versions=VERSIONS,
        engine_message="ZeRO-2 and ZeRO-3 are incompatible with pipeline parallelism",
    ),
    Rule(
        id="pipeline-enough-blocks",
        summary="There are at least as many blocks as pipeline stages.",
        check=_enough_blocks,
        remedy="use at most as many stages as the model has blocks",
        source="model/pipeline.py, check_partition",
        versions=VERSIONS,
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
        versions=VERSIONS,
    ),
    Rule(
        id="interval-within-blocks",
        summary="A checkpoint segment is not longer than the model: a longer one changes nothing.",
        check=_interval_within_blocks,
        remedy="use an interval of at most the number of blocks, or 0 for no checkpointing",
        source="runtime/pipe/module.py:373",
        versions=VERSIONS,
    ),
)
