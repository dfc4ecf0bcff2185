"""A risk of a change, and what the rules that find risks look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from vdsgen.review.changes import Change
from vdsgen.review.effective import EffectiveConfig
from vdsgen.review.side import DS_CONFIG
from vdsgen.review.verdicts import Verdicts
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.plan import Plan

Severity = Literal["warning", "error"]


class Risk(NamedTuple):
    """One thing that may go wrong."""

    id: str
    severity: Severity
    message: str
    remedy: str
    keys: tuple[str, ...] = ()
    """`FILE:key`"""


@dataclass(frozen=True, slots=True)
class Sides:
    """All that the rules look at. Plans and experiments are those of rendered directories."""

    old: EffectiveConfig
    new: EffectiveConfig
    changes: Sequence[Change]
    verdicts: Verdicts
    plans: tuple[Plan, Plan] | None = None
    """With the figures of what the directories say now."""
    experiments: tuple[Experiment, Experiment] | None = None

    def values(self, key: str) -> tuple[Any, Any]:
        """What the engine works with, of ds_config.json."""
        return self.old.value(key), self.new.value(key)

    def changed(self, *names: str) -> tuple[str, ...]:
        """Those of these `FILE:key` that changed with effect."""
        return tuple(change.name for change in self.changes if change.affects and change.name in names)


Rule = Callable[[Sides], Iterator[Risk]]


def engine_key(key: str) -> str:
    """`FILE:key` of a key of ds_config.json."""
    return f"{DS_CONFIG}:{key}"
