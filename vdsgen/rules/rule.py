"""What a rule is, and checking facts against rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import is_
from typing import Any, Final, Literal, NamedTuple

from vdsgen.rules.facts import GROUPS, Facts

READ_IN = "0.19.8"
"""The release of DeepSpeed that the rules' sources were read in."""

Severity = Literal["refused", "ignored", "overridden", "hurts", "ours"]
"""What becomes of a configuration that breaks a rule.

refused: the engine raises. ignored: it takes the setting and does nothing with it. overridden: it takes the
setting and does something else. hurts: it does as told, and memory, speed or numerics suffer. ours: the
engine may take it; this project's trainer does not.
"""


class _Remove:
    """A key that is taken out."""

    def __repr__(self) -> str:
        return "REMOVE"


REMOVE: Final = _Remove()

Change = tuple[str, Any]
"""A JSON pointer into ds_config.json, and its new value or REMOVE (of a key that `given` holds)."""

Check = Callable[[Facts], str | None]
"""The violation as one sentence with the actual values of both sides; None where the rule holds."""

Fix = Callable[[Facts], tuple[Change, ...]]
"""For facts that break the rule: changes after which they no longer do; empty where no change is certain.
Sections on the way to a new key may be missing; whoever makes a JSON patch adds them."""


class Rule(NamedTuple):
    """One thing that a configuration must obey."""

    id: str
    """Lower-case words joined by hyphens; what plans, lint findings and docs call it."""
    summary: str
    """The rule in one sentence, for the docs."""
    check: Check
    remedy: str
    source: str
    """Where it comes from: a file and line of the engine under `deepspeed/`, or of this project."""
    versions: str = READ_IN
    """Releases of DeepSpeed that the source was read in."""
    engine_message: str | None = None
    """Part of what the engine raises; None where it raises nothing (the rule says why it matters then)."""
    severity: Severity = "refused"
    keys: tuple[str, ...] = ()
    """JSON pointers of the keys in ds_config.json that the rule is about, the one to blame first; those
    that are not in the file are for context. Empty where the file does not decide."""
    fix: Fix | None = None
    needs: tuple[str, ...] = ()
    """Groups of facts (`Facts.zero`, ..., `given`) without which the rule passes; it is skipped then."""


class Violation(NamedTuple):
    """A rule that a configuration breaks."""

    rule: Rule
    message: str

    def __str__(self) -> str:
        return f"{self.message} [{self.rule.id}]\n  -> {self.rule.remedy}"


class Rules(tuple[Rule, ...]):
    """Rules in a fixed order; those that need what is not known are skipped without being asked."""

    def __init__(self, rules: Iterable[Rule]) -> None:  # noqa: ARG002
        self._by_unknown: dict[tuple[bool, ...], tuple[Rule, ...]] = {}

    def known(self, facts: Facts) -> tuple[Rule, ...]:
        """The rules whose needs `facts` meet, in order."""
        unknown = tuple(map(is_, facts[_FIRST_GROUP:], _NOTHING))
        found = self._by_unknown.get(unknown)
        if found is None:
            missing = {name for name, absent in zip(_NAMES, unknown, strict=True) if absent}
            found = tuple(rule for rule in self if missing.isdisjoint(rule.needs))
            self._by_unknown[unknown] = found
        return found


_FIRST_GROUP = Facts._fields.index(GROUPS[0])
_NAMES = Facts._fields[_FIRST_GROUP:]
_NOTHING = tuple(Facts._field_defaults[name] for name in _NAMES)


def violations(facts: Facts, rules: Iterable[Rule]) -> list[Violation]:
    """All rules that `facts` break, in the order of `rules`."""
    found = []
    for rule in rules.known(facts) if isinstance(rules, Rules) else rules:
        message = rule.check(facts)
        if message is not None:
            found.append(Violation(rule, message))
    return found
