"""docs/rules.md, from the rules themselves: `python -m vdsgen.rules.markdown > docs/rules.md`."""

from __future__ import annotations

import sys

from vdsgen.rules.registry import all_rules

HEAD = """\
# Rules

What a configuration must obey, as the planner checks it. Made from `vdsgen/rules` by
`python -m vdsgen.rules.markdown > docs/rules.md`; a test keeps this page fresh. Sources are files of
DeepSpeed below `deepspeed/`, or of this project. Where the engine says nothing, it takes the
configuration and something else goes wrong.

| rule | what must hold | what to do | source | DeepSpeed | the engine says |
|---|---|---|---|---|---|
"""


def rules_markdown() -> str:
    """The page as one string."""
    rows = []
    for rule in all_rules():
        says = f"`{rule.engine_message}`" if rule.engine_message else "nothing"
        cells = (f"`{rule.id}`", rule.summary, rule.remedy, f"`{rule.source}`", rule.versions, says)
        rows.append("| " + " | ".join(cells) + " |\n")
    return HEAD + "".join(rows)


if __name__ == "__main__":
    sys.stdout.write(rules_markdown())
