"""Which rule forbids a candidate, asked so that a hundred rules cost a search little.

Candidates differ mostly in their batch, which few rules look at. For everything else that rules see, they are
asked once: each notes which facts it reads, and those that read nothing of the batch need not be asked again.
"""

from __future__ import annotations

from typing import Any

from vdsgen.cost.settings import Settings
from vdsgen.planner.facts import facts
from vdsgen.planner.workload import Workload
from vdsgen.rules.facts import Facts
from vdsgen.rules.registry import forbidding_rules
from vdsgen.rules.rule import Rule, Violation

BATCH = frozenset({"micro_batch_size", "gradient_accumulation_steps"})


class _Read(Facts):
    """Facts that note which of them are read."""

    def __getattribute__(self, name: str) -> Any:
        if name in Facts._fields:
            _reads.add(name)
        return super().__getattribute__(name)


_reads: set[str] = set()


class Legality:
    """The rules, for the candidates of one workload."""

    def __init__(self, workload: Workload) -> None:
        self._workload = workload
        self._known: dict[Settings, tuple[Facts, tuple[tuple[Rule, str | None], ...]]] = {}

    def broken(self, settings: Settings) -> Violation | None:
        """The first rule that these settings break."""
        alike = settings._replace(micro_batch_size=1, gradient_accumulation_steps=1)
        asked = self._known.get(alike)
        if asked is None:
            first = facts(self._workload, settings)
            asked = self._known[alike] = (first, _asked(first))
        first, entries = asked
        seen = None
        for rule, known in entries:
            message = known
            if message is None:
                seen = seen or first._replace(**{name: getattr(settings, name) for name in BATCH})
                message = rule.check(seen)
            if message is not None:
                return Violation(rule, message)
        return None


def _asked(known: Facts) -> tuple[tuple[Rule, str | None], ...]:
    """The rules that forbid what is so, and (without a message) those that also look at the batch."""
    seen = _Read(*known)
    found: list[tuple[Rule, str | None]] = []
    for rule in forbidding_rules().known(known):
        _reads.clear()
        message = rule.check(seen)
        if _reads & BATCH:
            found.append((rule, None))
        elif message is not None:
            found.append((rule, message))
    return tuple(found)
