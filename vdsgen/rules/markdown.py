"""docs/rules.md, from the rules themselves: `python -m vdsgen.rules.markdown > docs/rules.md`."""

from __future__ import annotations

import sys
from collections import Counter

from vdsgen.rules.registry import SUBJECTS, all_rules
from vdsgen.rules.rule import READ_IN, Rule

HEAD = """\
# Rules

What a configuration must obey: {count} rules, read in the source of DeepSpeed {release}. `vdsgen plan` never
proposes what breaks one of them, those that merely hurt aside; `vdsgen lint` checks any ds_config.json
against all; `vdsgen catalog rules NAME` shows one. Made from `vdsgen/rules` by
`python -m vdsgen.rules.markdown > docs/rules.md`; a test keeps this page fresh.

| level | what becomes of a configuration that breaks it | rules |
|---|---|---|
{levels}
Sources are files of DeepSpeed below `deepspeed/`, or of this project. Tests run a configuration that breaks
the rule through the engine itself and compare what it says or does (`tests/rules/engine_cases.py`, with the
reason where that needs hardware that tests do not have), and look for the text at each source line. Those
rules that name a file of this project are its own.
"""

LEVELS = {
    "refused": "the engine raises",
    "ignored": "the engine takes the setting and does nothing with it",
    "overridden": "the engine takes the setting and does something else",
    "hurts": "it runs as told, and memory, speed or numerics suffer",
    "ours": "this project's planner and trainer do without it, whether the engine takes it or not",
}

COLUMNS = """
| rule | level | what must hold | what to do | keys | source |
|---|---|---|---|---|---|
"""


def rules_markdown() -> str:
    """The page as one string."""
    counts = Counter[str](rule.severity for rule in all_rules())
    levels = "".join(f"| {level} | {meaning} | {counts[level]} |\n" for level, meaning in LEVELS.items())
    parts = [HEAD.format(count=len(all_rules()), release=READ_IN, levels=levels)]
    for subject, rules in SUBJECTS.items():
        parts.append(f"\n## {subject}\n{COLUMNS}" + "".join(map(_row, rules)))
    return "".join(parts)


def _row(rule: Rule) -> str:
    says = f": `{rule.engine_message}`" if rule.engine_message else ""
    shown = rule.keys[:3] + (("...",) if len(rule.keys) > 3 else ())
    keys = ", ".join("..." if key == "..." else f"`{key[1:].replace('/', '.')}`" for key in shown)
    cells = (f"`{rule.id}`", rule.severity + says, rule.summary, rule.remedy, keys, f"`{rule.source}`")
    return "| " + " | ".join(cells) + " |\n"


if __name__ == "__main__":
    sys.stdout.write(rules_markdown())
