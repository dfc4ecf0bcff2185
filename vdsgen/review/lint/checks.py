"""Lint's own checks; all others are rules (docs/rules.md)."""

from __future__ import annotations

from typing import NamedTuple

from vdsgen.review.lint.finding import Level
from vdsgen.review.lint.rules import LATER, LEVELS
from vdsgen.rules.registry import all_rules


class Check(NamedTuple):
    """What can be found, for the docs and for tools that show findings."""

    id: str
    level: Level
    """The worst it comes at."""
    summary: str
    remedy: str | None = None
    source: str | None = None


OWN = (
    Check(
        "no-strict-json",
        "warning",
        "The file is JSON: comments, stray commas and bare words pass DeepSpeed only.",
    ),
    Check("duplicate-key", "error", "No key is given twice in one object."),
    Check("unknown-key", "error", "Keys are those that DeepSpeed knows: it refuses others, or drops them."),
    Check("key-named-twice", "error", "A key that has two names is given under one of them."),
    Check("deprecated-key", "warning", "Keys are not deprecated."),
    Check("unread-key", "warning", "Something in DeepSpeed reads the key."),
    Check("wrong-type", "error", "Values are of the key's type and within its limits."),
    Check("coerced-value", "note", "Values are of the key's type without DeepSpeed's help."),
    Check("auto-as-text", "error", 'Outside of checked sections, DeepSpeed itself takes "auto" for text.'),
    Check(
        "data-efficiency-incomplete",
        "error",
        "A part of data_efficiency that is enabled has the keys that it needs.",
    ),
    Check("departs-from-plan", "warning", "The config says what its plan says."),
)


def all_checks() -> tuple[Check, ...]:
    """Lint's own, then the rules, each with an id that stays."""
    rules = tuple(
        Check(rule.id, LATER.get(rule.id, LEVELS[rule.severity]), rule.summary, rule.remedy, rule.source)
        for rule in all_rules()
    )
    return OWN + rules
