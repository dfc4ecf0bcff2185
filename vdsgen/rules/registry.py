"""All rules, in the order they are checked and documented."""

from __future__ import annotations

from functools import cache

from vdsgen.rules import (
    activation_checkpointing,
    automatic,
    batch,
    communication,
    compiling,
    loss_scaling,
    master_weights,
    monitoring,
    offload,
    optimizer,
    parallelism,
    params,
    pipeline,
    precision,
    removed,
    saving,
    scheduler,
    sizes,
    zenflow,
    zero,
    zeropp,
)
from vdsgen.rules.rule import Rule, Rules

SUBJECTS: dict[str, tuple[Rule, ...]] = {
    "Batch sizes": batch.RULES,
    "Pipelines": pipeline.RULES,
    "Parallel sizes": parallelism.RULES,
    "Number formats": precision.RULES,
    "Master weights": master_weights.RULES,
    "Loss scaling": loss_scaling.RULES,
    "ZeRO": zero.RULES,
    "ZeRO++": zeropp.RULES,
    "Offload": offload.RULES,
    "ZenFlow": zenflow.RULES,
    "Sizes": sizes.RULES,
    "Communication": communication.RULES,
    "Optimizer": optimizer.RULES,
    "Learning rate": scheduler.RULES,
    "Params of optimizers and schedules": params.RULES,
    "Activation checkpointing": activation_checkpointing.RULES,
    "Checkpoints": saving.RULES,
    "DeepCompile": compiling.RULES,
    "Timing and logging": monitoring.RULES,
    "Removed and deprecated": removed.RULES,
    "Automatic values": automatic.RULES,
}


@cache
def all_rules() -> Rules:
    """Every rule that there is."""
    return Rules(rule for rules in SUBJECTS.values() for rule in rules)


@cache
def forbidding_rules() -> Rules:
    """The rules that no plan may break: all but those on what merely hurts."""
    return Rules(rule for rule in all_rules() if rule.severity != "hurts")


def rule(rule_id: str) -> Rule:
    """The rule of this id. Raises KeyError."""
    return {rule.id: rule for rule in all_rules()}[rule_id]
