"""Verdicts and risks in words, for the terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from vdsgen.planner.words import gib
from vdsgen.render.formats import decimal
from vdsgen.review.diff import Diff
from vdsgen.review.effect import Curve
from vdsgen.review.resume import Resume
from vdsgen.review.verdicts import ScaledRate

Tone = Literal["good", "fair", "bad", "plain"]
"""How a verdict is coloured; the words say the same without."""
MOST_KEYS = 4
"""Keys named behind a verdict."""
MOST_REASONS = 2
"""Why a run cannot go on."""
CURVES: dict[Curve, tuple[str, Tone]] = {
    "identical": ("identical", "good"),
    "rounding": ("the same but for rounding", "fair"),
    "different": ("different", "bad"),
}
RESUMES: dict[Resume, tuple[str, Tone]] = {
    "as_is": ("as it is", "good"),
    "conversion": ("only through conversion", "fair"),
    "impossible": ("not possible", "bad"),
}


class Verdict(NamedTuple):
    """One line that a reviewer needs."""

    subject: str
    says: str
    tone: Tone
    detail: str = ""
    keys: tuple[str, ...] = ()


def verdict_lines(result: Diff) -> Iterator[Verdict]:
    """Fits, faster, loss curve, resume, learning rate."""
    yield from _predicted(result)
    found = result.verdicts
    says, tone = CURVES[found.loss_curve]
    yield Verdict("loss curve", says, tone, keys=found.loss_curve_because)
    says, tone = RESUMES[found.resume.verdict]
    why = "; ".join(found.resume.reasons[:MOST_REASONS]) if found.resume.verdict == "impossible" else ""
    yield Verdict("resume OLD's run", says, tone, why, found.resume.because)
    if found.learning_rate is not None:
        yield _learning_rate(found.learning_rate)


def _predicted(result: Diff) -> Iterator[Verdict]:
    before, after = result.before, result.after
    if before is None or after is None:
        return
    spare, had = after.headroom_bytes, before.headroom_bytes
    if spare < 0:
        yield Verdict("fits", "no", "bad", f"{gib(-spare)} too much on the fullest GPU")
    else:
        than = "as before" if spare == had else f"{gib(had)} before" if had >= 0 else "it did not before"
        yield Verdict("fits", "yes", "good", f"{gib(spare)} free on the fullest GPU, {than}")
    old, new = before.samples_per_second, after.samples_per_second
    rates = f"{decimal(old)} -> {decimal(new)} samples/s"
    change = new / old - 1 if old else 0.0
    if abs(change) < 0.0005:
        yield Verdict("speed", "as before", "plain", f"{decimal(new)} samples/s")
    else:
        faster = change > 0
        word = f"{abs(change) * 100:.1f} % {'faster' if faster else 'slower'}"
        yield Verdict("speed", word, "good" if faster else "bad", rates)


def _learning_rate(scaled: ScaledRate) -> Verdict:
    batch = f"the batch is {scaled.batch_ratio:g} times OLD's"
    if scaled.old is None or scaled.square_root is None or scaled.linear is None:
        return Verdict("learning rate", "not known", "fair", batch)
    same = scaled.new == scaled.old
    says = f"still {scaled.old:g}" if same else f"{scaled.old:g} -> {scaled.new or 0:g}"
    rules = f"its square root (Adam) makes {scaled.square_root:.3g}, proportion (SGD) {scaled.linear:.3g}"
    return Verdict("learning rate", says, "fair", f"{batch}; {rules}")


def named_keys(keys: tuple[str, ...]) -> str:
    """Some of them, and how many more."""
    names = [short_key(key) for key in keys[:MOST_KEYS]]
    more = len(keys) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")


def short_key(name: str) -> str:
    """Of `FILE:key` the key; the file where it is compared as a whole."""
    file, _, key = name.partition(":")
    return key or file


def no_difference(result: Diff) -> str:
    """What is said where nothing would be noticed."""
    if result.without_effect:
        return "No difference in effect."
    return "No difference."


def edited_sentences(result: Diff) -> Iterator[str]:
    """On directories whose ds_config.json was edited by hand."""
    for edited in result.edited:
        edits = f"{edited.label}/ds_config.json no longer says what was planned ({named_keys(edited.keys)})"
        if edited.missing is None:
            yield f"{edits}. What is predicted for it is for the file as it is."
        else:
            yield f"{edits}, and what is predicted leaves that out: {edited.missing}."


INSTEAD = ("`vdsgen check`", " shows the lines; pin what you want and generate again.")
"""What to do about edited files."""


def repeats(result: Diff) -> str | None:
    """How many changes only repeat others."""
    hidden = len(result.changes) - len(result.shown) - len(result.without_effect)
    if not hidden:
        return None
    verb = "change follows" if hidden == 1 else "changes follow"
    return f"{hidden} more {verb} from these; --format json lists all."
