"""What a reviewer should not miss: each a small rule on two sides, with the values and a remedy."""

from __future__ import annotations

from collections.abc import Iterator

from vdsgen.review.changes import HIDDEN_NOW
from vdsgen.review.risk import Risk, Rule, Sides, engine_key
from vdsgen.review.risks_of_numerics import NUMERICS
from vdsgen.review.risks_of_running import RUNNING


def risks(sides: Sides) -> tuple[Risk, ...]:
    """Errors first."""
    found = [risk for rule in RULES for risk in rule(sides)]
    known = {risk.id for risk in found}
    found += [risk for risk in _lint(sides) if risk.id not in known]
    return tuple(sorted(found, key=lambda risk: risk.severity != "error"))


def _secrets(sides: Sides) -> Iterator[Risk]:
    for change in sides.changes:
        if change.new == HIDDEN_NOW:
            yield Risk(
                "secret-in-file", "error",
                f"{change.key} holds a secret now, and config files are committed, rendered and logged",
                "take it out, and replace it if it was committed: monitors read theirs from the environment",
                (change.name,),
            )  # fmt: skip


RULES: tuple[Rule, ...] = (*RUNNING, *NUMERICS, _secrets)

NOT_NEW = frozenset({"departs-from-plan", "no-strict-json"})
"""Checks that are about the file, or that the diff says in words of its own."""
SAID_BETTER = {"pipeline-zero": "zero-with-pipeline", "loss-scale-initial": "loss-scale-starts-high"}


def _lint(sides: Sides) -> Iterator[Risk]:
    """What `vdsgen lint` finds in NEW, and not in OLD."""
    before = {(finding.check, finding.pointer) for finding in sides.old.linted.findings}
    seen = set[tuple[str, str]]()
    nothing_changes = not any(change.affects for change in sides.changes)
    for finding in sides.new.linted.findings:
        place = (finding.check, finding.pointer)
        if finding.level == "note" or finding.check in NOT_NEW or place in before | seen:
            continue
        if nothing_changes and finding.level != "error":
            continue
        seen.add(place)
        key = finding.pointer[1:].replace("/", ".")
        yield Risk(
            SAID_BETTER.get(finding.check, finding.check), finding.level, finding.message,
            finding.remedy or "see vdsgen lint", (engine_key(key),) if key else (),
        )  # fmt: skip
