"""All rules, in the order they are checked and documented."""

from __future__ import annotations

from functools import cache

from vdsgen.rules import batch, pipeline, precision
from vdsgen.rules.rule import Rule, Rules


@cache
def all_rules() -> Rules:
    """Every rule that there is."""
    return Rules(batch.RULES + pipeline.RULES + precision.RULES)


@cache
def forbidding_rules() -> Rules:
    """The rules that no plan may break: all but those on what merely hurts."""
    return Rules(rule for rule in all_rules() if rule.severity != "hurts")


def rule(rule_id: str) -> Rule:
    """The rule of this id. Raises KeyError."""
    return {rule.id: rule for rule in all_rules()}[rule_id]
