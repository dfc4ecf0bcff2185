"""Rules on checkpoints of a run."""

from __future__ import annotations

from vdsgen.rules.facts import Facts
from vdsgen.rules.keys import removal, setting
from vdsgen.rules.rule import Rule

TAGS = "/checkpoint/tag_validation"
UNIVERSAL = "/checkpoint/load_universal"
WRITING = "/checkpoint/parallel_write/pipeline_stage"

WRITER = "/checkpoint/writer"
UNIT = f"{WRITER}/data_parallel"


def _tags_are_known(facts: Facts) -> str | None:
    validation = facts.saving.tag_validation
    if validation is None or validation.upper() in ("WARN", "IGNORE", "FAIL"):
        return None
    return f"checkpoint.tag_validation is {validation}"


def _writing_is_boolean(facts: Facts) -> str | None:
    value = facts.saving.parallel_write_pipeline
    return None if value in (None, True, False) else f"checkpoint.parallel_write.pipeline_stage is {value!r}"


def _writer_has_a_unit(facts: Facts) -> str | None:
    if not facts.saving.writer or facts.saving.writer_unit is not None:
        return None
    if facts.pipeline.is_pipeline is not False:
        return None
    if facts.zero_stage in (None, 3) or facts.model.mixture_of_experts or facts.tensor_parallel.autotp_size:
        return None
    return f"checkpoint.writer without data_parallel at ZeRO stage {facts.zero_stage}"


def _same_ranks(facts: Facts) -> str | None:
    before, now = facts.saving.resumed_data_parallel_size, facts.data_parallel_size
    if before is None or now is None or before == now or not facts.zero_stage or facts.saving.load_universal:
        return None
    return f"a checkpoint of {before} data-parallel ranks resumed on {now} at ZeRO stage {facts.zero_stage}"


RULES = (
    Rule(
        id="checkpoint-tags",
        summary="Tags of checkpoints are validated by Warn, Ignore or Fail.",
        check=_tags_are_known,
        remedy="use Warn, Ignore or Fail",
        source="runtime/config.py:394",
        engine_message="Checkpoint config contains invalid tag_validation",
        keys=(TAGS,),
        fix=removal(TAGS),
        needs=("saving",),
    ),
    Rule(
        id="checkpoint-parallel-write",
        summary="checkpoint.parallel_write.pipeline_stage is true or false.",
        check=_writing_is_boolean,
        remedy="use true or false",
        source="runtime/config.py:405",
        engine_message="checkpoint::parallel_write::pipeline_stage",
        keys=(WRITING,),
        fix=removal(WRITING),
        needs=("saving",),
    ),
    Rule(
        id="checkpoint-writer-unit",
        summary=(
            "A plain engine's checkpoint writer is told what writes in parallel: without, it asks for a rank "
            "that it was not given."
        ),
        check=_writer_has_a_unit,
        remedy="set checkpoint.writer.data_parallel to replica, socket or machine, or take the writer out",
        source="runtime/model_checkpointing/data_parallel_writer_factory.py:95",
        engine_message="has no attribute 'dp_rank'",
        keys=(WRITER, UNIT),
        fix=setting(UNIT, "replica"),
        needs=("pipeline", "saving"),
    ),
    Rule(
        id="resume-same-ranks",
        summary="ZeRO's checkpoints resume on as many data-parallel ranks as wrote them.",
        check=_same_ranks,
        remedy="convert the checkpoint with ds_to_universal and set checkpoint.load_universal",
        source="runtime/engine.py:4749",
        engine_message="is not currently supported",
        keys=(UNIVERSAL,),
        fix=setting(UNIVERSAL, True),
        needs=("saving",),
    ),
)
