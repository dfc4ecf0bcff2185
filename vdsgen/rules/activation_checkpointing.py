"""Rules on the section activation_checkpointing."""

from __future__ import annotations

from vdsgen.rules.facts import Facts
from vdsgen.rules.keys import below, removal
from vdsgen.rules.rule import Rule

SECTION = "/activation_checkpointing"
CONTIGUOUS, PARTITION, NUMBER, PROFILE, SYNCHRONIZE = below(
    SECTION,
    "contiguous_memory_optimization partition_activations number_checkpoints profile "
    "synchronize_checkpoint_boundary",
)


def _is_configured(facts: Facts) -> str | None:
    if facts.checkpointing.configured is not False or facts.given is None or SECTION not in facts.given:
        return None
    return "an activation_checkpointing section, and nothing calls deepspeed.checkpointing.configure"


def _is_partitioned(facts: Facts) -> str | None:
    checkpointing = facts.checkpointing
    if not checkpointing.contiguous_memory_optimization or checkpointing.configured is False:
        return None
    if checkpointing.partition_activations is not False:
        return None
    return "contiguous_memory_optimization is true, and partition_activations false"


def _is_counted(facts: Facts) -> str | None:
    checkpointing = facts.checkpointing
    if not checkpointing.contiguous_memory_optimization or checkpointing.configured is False:
        return None
    if not checkpointing.partition_activations or checkpointing.number_checkpoints != 0:
        return None
    return "contiguous_memory_optimization is true, and number_checkpoints is not given"


def _has_ranks_to_partition(facts: Facts) -> str | None:
    if not facts.checkpointing.partition_activations or facts.tensor_parallel_size != 1:
        return None
    return "partition_activations is true on 1 tensor parallel rank"


def _is_not_timed(facts: Facts) -> str | None:
    checkpointing = facts.checkpointing
    on = {
        "profile": checkpointing.profile,
        "synchronize_checkpoint_boundary": checkpointing.synchronize_checkpoint_boundary,
    }
    found = [name for name, is_on in on.items() if is_on]
    if not found or checkpointing.configured is False:
        return None
    return f"activation_checkpointing.{' and '.join(found)} on"


RULES = (
    Rule(
        id="checkpointing-configured",
        summary=(
            "The section activation_checkpointing is read by deepspeed.checkpointing.configure, which the "
            "training code calls; the engine only parses it."
        ),
        check=_is_configured,
        remedy="call deepspeed.checkpointing.configure, or take the section out",
        source="runtime/config.py:503",
        severity="ignored",
        keys=(SECTION,),
        fix=removal(SECTION),
        needs=("given", "checkpointing"),
    ),
    Rule(
        id="checkpointing-contiguous-partitioned",
        summary="Contiguous checkpoints are partitioned ones.",
        check=_is_partitioned,
        remedy="set partition_activations to true, or contiguous_memory_optimization to false",
        source="runtime/activation_checkpointing/checkpointing.py:1229",
        engine_message="Contiguous Checkpointing is only available with partitioned activations",
        keys=(CONTIGUOUS, PARTITION),
        fix=removal(CONTIGUOUS),
        needs=("checkpointing",),
    ),
    Rule(
        id="checkpointing-contiguous-number",
        summary="Contiguous checkpoints need their number.",
        check=_is_counted,
        remedy="set number_checkpoints to the number of checkpointed layers",
        source="runtime/activation_checkpointing/checkpointing.py:1231",
        engine_message="Must specify the number of layers with contiguous memory checkpointing",
        keys=(NUMBER, CONTIGUOUS),
        needs=("checkpointing",),
    ),
    Rule(
        id="checkpointing-partitioned-ranks",
        summary="Checkpoints are partitioned between tensor parallel ranks: on one rank nothing is.",
        check=_has_ranks_to_partition,
        remedy="take partition_activations out",
        source="runtime/activation_checkpointing/checkpointing.py:271",
        severity="ignored",
        keys=(PARTITION,),
        fix=removal(PARTITION, CONTIGUOUS),
        needs=("checkpointing",),
    ),
    Rule(
        id="checkpointing-timed",
        summary="Timing checkpoints makes the GPU wait at each of them.",
        check=_is_not_timed,
        remedy="set it to false once measured",
        source="runtime/activation_checkpointing/checkpointing.py:588",
        severity="hurts",
        keys=(PROFILE, SYNCHRONIZE),
        fix=removal(PROFILE, SYNCHRONIZE),
        needs=("checkpointing",),
    ),
)
