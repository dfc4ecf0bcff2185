"""Writes docs/verdicts.md from the held-out pairs, and from the figures that tests/campaigns/verdicts.py left
in docs/measured/reviews.

python -m tests.update_verdicts
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tests.campaigns.figures import REVIEWS, read
from tests.campaigns.verdict_tables import section
from tests.review.held_out_pairs import HeldOut, held_out

PAGE = REVIEWS.parents[1] / "verdicts.md"
OPENING = """\
# What a changed setting really does

`vdsgen diff` says whether a change touches the loss curve, and whether a run can be resumed under it. What
it says is held against pairs of configs in `tests/review/held_out` that were written without looking at it:
their truth is in the engine's code, in papers, or measured here by training both sides.
`tests/review/test_held_out.py` asks for all of them. This page is made by `python -m tests.update_verdicts`.
"""
DEPENDS = "depends on more than the config says"
VERDICTS = {
    "loss_curve": ("identical", "rounding", "different"),
    "resume": ("as_is", "conversion", "impossible"),
}


def pairs() -> Iterator[str]:
    """How many held-out pairs there are of each kind."""
    known = list(held_out())
    yield "## The held-out pairs"
    yield ""
    yield "| | plain DeepSpeed JSON | experiments and labs |"
    yield "|---|---|---|"
    rows: list[tuple[str, Callable[[HeldOut], bool]]] = [
        ("pairs", lambda pair: True),
        ("say the same in other words", lambda pair: pair.same),
    ]
    for verdict, values in VERDICTS.items():
        rows += [(f"`{verdict}` {value}", _is(verdict, (value,))) for value in values]
        rows.append((f"`{verdict}` {DEPENDS}", _depends(verdict)))
    rows += [
        ("a risk that must be named", lambda pair: pair["risk"] is not None),
        ("memory or time of which the direction is known", lambda pair: bool(pair["memory"] or pair["time"])),
        ("the truth was found by training", lambda pair: pair["run"] is not None),
    ]
    for words, holds in rows:
        counts = (sum(holds(one) for one in known if one.is_plain is plain) for plain in (True, False))
        yield f"| {words} | " + " | ".join(map(str, counts)) + " |"


def _is(verdict: str, values: tuple[str, ...]) -> Callable[[HeldOut], bool]:
    return lambda pair: pair.allowed(verdict) == values


def _depends(verdict: str) -> Callable[[HeldOut], bool]:
    return lambda pair: len(pair.allowed(verdict)) > 1


def page() -> str:
    measured = read("verdicts", REVIEWS)
    machine = measured["machine"]
    return "\n".join(
        [
            OPENING,
            *pairs(),
            "",
            section(measured["figures"]).rstrip(),
            "",
            f"`{measured['command']}`, {machine['processors']} processors ({machine['architecture']}), "
            f"torch {machine['torch']}, DeepSpeed {machine['deepspeed']}, Python {machine['python']}.",
            "",
        ]
    )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
