"""Writes docs/reliability.md from the figures that the campaigns left in docs/measured/reliability.

python -m tests.update_reliability
"""

from __future__ import annotations

from importlib import import_module

from tests.campaigns.figures import FOLDER, read

PAGE = FOLDER.parents[1] / "reliability.md"
CAMPAIGNS: tuple[str, ...] = ("preflight", "saves", "kills", "replans", "fuzz")
"""Modules of tests/campaigns, in the order of the page."""
OPENING = """\
# What was broken on purpose, and what came of it

Each part was measured by its own command, which breaks things for real, writes its figures into
`docs/measured/reliability` and exits with 1 where something was lost. This page is made of those figures by
`python -m tests.update_reliability`.
"""


def page() -> str:
    return "\n".join([OPENING, *(_part(campaign) for campaign in CAMPAIGNS)])


def _part(campaign: str) -> str:
    measured = read(campaign)
    machine = measured["machine"]
    text: str = import_module(f"tests.campaigns.{campaign}").section(measured["figures"])
    return (
        f"{text.rstrip()}\n\n"
        f"`{measured['command']}`, {machine['processors']} processors ({machine['architecture']}), "
        f"torch {machine['torch']}, DeepSpeed {machine['deepspeed']}, Python {machine['python']}.\n"
    )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
