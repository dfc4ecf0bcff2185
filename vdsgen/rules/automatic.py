"""Rules on the value "auto", which trainers such as Hugging Face's fill in before DeepSpeed reads it."""

from __future__ import annotations

from vdsgen.rules.facts import Facts
from vdsgen.rules.keys import are
from vdsgen.rules.rule import REMOVE, Change, Rule

SECTIONS = ("/zero_optimization", "/fp16", "/bf16", "/bfloat16", "/flops_profiler", "/tensor_parallel")
"""Those whose "auto" the engine drops (runtime/config_utils.py:56)."""


def _dropped(facts: Facts) -> tuple[str, ...]:
    found = facts.automatic or frozenset()
    return tuple(sorted(key for key in found if key.startswith(tuple(f"{one}/" for one in SECTIONS))))


def _is_a_value(facts: Facts) -> str | None:
    found = _dropped(facts)
    if not found:
        return None
    return f'{are(found)} "auto", for which the engine takes its default'


def _without(facts: Facts) -> tuple[Change, ...]:
    return tuple((key, REMOVE) for key in _dropped(facts))


RULES = (
    Rule(
        id="auto-is-default",
        summary='DeepSpeed itself reads "auto" as its default: only trainers put something better there.',
        check=_is_a_value,
        remedy="give a value, or hand the file to a trainer that fills it in",
        source="runtime/config_utils.py:56",
        severity="overridden",
        keys=SECTIONS,
        fix=_without,
        needs=("automatic",),
    ),
)
