"""Writes docs/verdicts.md from the figures that tests/campaigns/verdicts.py left in docs/measured/reviews.

python -m tests.update_verdicts
"""

from __future__ import annotations

from tests.campaigns.figures import REVIEWS, read
from tests.campaigns.verdict_tables import section

PAGE = REVIEWS.parents[1] / "verdicts.md"
OPENING = """\
# What a changed setting really does

`vdsgen diff` says whether a loss curve changes and whether a run can be resumed. What it says is held against
the pairs in `tests/review/held_out`, whose truth is in the engine's code, in papers, or here: measured, by
training both sides. This page is made of the figures in `docs/measured/reviews` by
`python -m tests.update_verdicts`.

"""


def page() -> str:
    measured = read("verdicts", REVIEWS)
    machine = measured["machine"]
    return (
        f"{OPENING}{section(measured['figures']).rstrip()}\n\n"
        f"`{measured['command']}`, {machine['processors']} processors ({machine['architecture']}), "
        f"torch {machine['torch']}, DeepSpeed {machine['deepspeed']}, Python {machine['python']}.\n"
    )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
