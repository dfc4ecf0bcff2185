"""All rules, in the order they are checked and documented."""

from __future__ import annotations

from vdsgen.rules import batch, communication, pipeline, precision
from vdsgen.rules.rule import Rule


def all_rules() -> tuple[Rule, ...]:
    """Every rule that there is."""
    return batch.RULES + pipeline.RULES + precision.RULES + communication.RULES


def rule(rule_id: str) -> Rule:
    """The rule of this id. Raises KeyError."""
    return {rule.id: rule for rule in all_rules()}[rule_id]
