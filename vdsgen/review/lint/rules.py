"""Broken rules (docs/rules.md) as findings, with their fixes as JSON patches."""

from __future__ import annotations

from typing import Any

from vdsgen.review.lint.context import Context
from vdsgen.review.lint.document import Document
from vdsgen.review.lint.finding import Finding, Level, Operation, finding_at
from vdsgen.rules.facts import Facts
from vdsgen.rules.registry import all_rules
from vdsgen.rules.rule import REMOVE, Change, Rule, Severity, violations

LEVELS: dict[Severity, Level] = {
    "refused": "error",
    "ours": "error",
    "ignored": "warning",
    "overridden": "warning",
    "hurts": "warning",
}

LATER: dict[str, Level] = {"zero-3-elastic-checkpoint": "warning", "zero-loading-in-turn": "warning"}
"""Refused not at the start, but where a checkpoint is saved or loaded."""
LONGEST = 400
"""Characters of a message."""
AUTOMATIC = "auto-is-default"
"""Told key by key, where each is written, by keys.py."""


def rule_findings(document: Document, facts: Facts, context: Context) -> list[Finding]:
    """What the rules say of these facts; those on this project's trainer only where it is the one."""
    found = []
    for violation in violations(facts, all_rules()):
        rule = violation.rule
        if rule.id == AUTOMATIC or (rule.severity == "ours" and context.plan is None):
            continue
        level = LATER.get(rule.id, LEVELS[rule.severity])
        if rule.severity == "hurts" and context.plan is not None:
            level = "note"  # the planner has weighed it
        path, at_key = _blamed(document, rule)
        changes = rule.fix(facts) if rule.fix is not None else ()
        found.append(
            finding_at(
                document, path, rule.id, level, _short(violation.message),
                remedy=rule.remedy, source=rule.source, fix=as_patch(document, changes), at_key=at_key,
            )
        )  # fmt: skip
    return found


def _short(message: str) -> str:
    """Values of any length may stand in a message."""
    return message if len(message) <= LONGEST else f"{message[: LONGEST - 3]}..."


def _blamed(document: Document, rule: Rule) -> tuple[tuple[str, ...], bool]:
    """The first of the rule's keys that is in the file, else where the first would stand."""
    paths = [tuple(key.split("/")[1:]) for key in rule.keys]
    for path in paths:
        if document.node(path) is not None:
            return path, False
    return (paths[0], True) if paths else ((), True)


def as_patch(document: Document, changes: tuple[Change, ...]) -> list[Operation]:
    """Changes of keys as operations; sections on the way that are missing are added first."""
    operations: list[Operation] = []
    made: set[str] = set()
    for key, value in changes:
        path = tuple(key.split("/")[1:])
        exists = document.node(path) is not None
        if value is REMOVE:
            if exists:
                operations.append({"op": "remove", "path": key})
            continue
        for depth in range(1, len(path)):
            section = "/" + "/".join(path[:depth])
            if document.node(path[:depth]) is None and section not in made:
                made.add(section)
                operations.append({"op": "add", "path": section, "value": {}})
        operation: dict[str, Any] = {"op": "replace" if exists else "add", "path": key, "value": value}
        operations.append(operation)
    return operations
