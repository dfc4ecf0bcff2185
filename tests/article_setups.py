"""The article's three set-ups: its own choices beside the planner's, and what each difference does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from tests.article_claims import workload
from vdsgen.planner.again import candidate_of
from vdsgen.planner.compare import PARTS
from vdsgen.planner.explanations.differences import Difference, Planned, differences
from vdsgen.planner.explanations.waterfall import waterfall
from vdsgen.planner.words import (
    checkpoint_words,
    communication_words,
    duration,
    gib,
    layout_words,
    offload_words,
    percent,
    rate,
    seconds,
)
from vdsgen.spec.explanations import NearestMiss, Waterfall
from vdsgen.spec.rendered import Rendered, read_rendered

RENDERED = Path(__file__).parent.parent / "examples/rendered"
SETUPS = (
    ("article-1.5b", "four-24gb", "1.5 B on 4 × 24 GB (A9)"),
    ("article-1.2b", "four-16gb", "1.2 B on 4 × 16 GB (A13)"),
    ("article-2.1b", "eight-24gb", "2.1 B on 8 × 24 GB (A11)"),
)
"""Experiment, lab, heading."""
VIDEOS = 100_000
LEAST_SECONDS = 0.0005
"""Parts of a step that differ by less are not told."""
ROWS = (
    "layout",
    "ZeRO stage",
    "batch",
    "checkpointing",
    "precision",
    "besides",
    "memory of each stage",
    "naive memory saved",
    "step",
    "waiting in the pipeline",
    "samples/s",
    f"{VIDEOS:,} videos",
)


def planned(rendered: Rendered) -> Planned:
    """A committed plan with its workload."""
    known = workload(rendered)
    return Planned(known, candidate_of(rendered.plan, known))


def setup(experiment: str, lab: str) -> tuple[Planned, Planned]:
    """The article's choices, and the planner's."""
    pinned = read_rendered(RENDERED / f"{experiment}-pinned@{lab}")
    return planned(pinned), planned(read_rendered(RENDERED / f"{experiment}@{lab}"))


def saved_words(known: Waterfall) -> str:
    """In total, and by measure."""
    parts = ", ".join(
        f"{step.measure} {percent(round(step.saved_bytes / known.naive_bytes, 4) + 0)}"
        for step in known.steps
    )
    return f"{percent(known.saved_fraction)}: {parts}"


def saved_by_plan() -> Iterator[tuple[str, str, Waterfall]]:
    """A2, for each set-up's two plans: (set-up, whose plan, what each measure saves)."""
    for experiment, lab, heading in SETUPS:
        for whose, plan in zip(
            ("the article's choices", "the planner's"), setup(experiment, lab), strict=True
        ):
            yield heading, whose, waterfall(plan.workload, plan.candidate)


def sections() -> str:
    """One section a set-up, for docs/article.md."""
    return "\n\n".join(_section(heading, *setup(experiment, lab)) for experiment, lab, heading in SETUPS)


def _section(heading: str, article: Planned, ours: Planned) -> str:
    table = "\n".join(
        f"| {name} | {theirs} | {mine} |"
        for name, theirs, mine in zip(ROWS, _column(article), _column(ours), strict=True)
        if (theirs, mine) != ("-", "-")
    )
    lines = "\n".join(f"- {sentence}" for sentence in difference_sentences(article, ours))
    return f"""### {heading}

| | the article's choices | the planner's |
|---|---|---|
{table}

{lines}"""


def _column(plan: Planned) -> tuple[str, ...]:
    """A cell for each of ROWS."""
    settings, time, known = plan.candidate.settings, plan.candidate.time, plan.workload
    partition = plan.candidate.placed.partition
    memories = [
        known.memory(settings, stage, start, stop).peak_bytes
        for stage, (start, stop) in enumerate(pairwise(partition))
    ]
    precision = f"{settings.dtype}, gradients accumulated in {settings.gradient_accumulation_dtype}"
    besides = ", ".join(filter(None, (*offload_words(settings), communication_words(settings))))
    return (
        layout_words(settings),
        str(settings.zero_stage),
        f"micro-batch {settings.micro_batch_size} x {settings.gradient_accumulation_steps} steps",
        checkpoint_words(settings),
        precision,
        besides or "-",
        f"{' / '.join(gib(size) for size in memories)} of {gib(known.capacity_bytes)}",
        saved_words(waterfall(known, plan.candidate)),
        seconds(time.step_seconds),
        percent(time.predicted().bubble_fraction),
        rate(time.samples_per_second),
        duration(VIDEOS / time.samples_per_second),
    )


def difference_sentences(article: Planned, ours: Planned) -> Iterator[str]:
    """What each choice that differs does to the other plan, and where the seconds between the two go."""
    for one in differences(article, ours):
        yield _difference(one, article, ours)
    theirs, mine = article.candidate.time, ours.candidate.time
    gain = mine.samples_per_second / theirs.samples_per_second - 1
    parts = {words: getattr(mine.split(), key) - getattr(theirs.split(), key) for key, words in PARTS.items()}
    told = ", ".join(
        f"{words} {'+' if value > 0 else '−'}{seconds(abs(value))}"
        for words, value in sorted(parts.items(), key=lambda part: part[1])
        if abs(value) >= LEAST_SECONDS
    )
    yield (
        f"**Together**: the planner's is predicted to be {percent(abs(gain))} {'faster' if gain > 0 else 'slower'}, "
        f"{seconds(mine.step_seconds)} a step for {seconds(theirs.step_seconds)}: {told}."
    )


def _difference(one: Difference, article: Planned, ours: Planned) -> str:
    words = f"**{one.choice}**: the article {one.one}, the planner {one.other}."
    for whose, outcome, plan in (
        ("The planner's plan with the article's", one.other_with_ones, ours),
        ("The article's plan with the planner's", one.one_with_others, article),
    ):
        if outcome is not None:
            words += f" {whose} {_outcome(outcome, plan)}."
    return words


def _outcome(outcome: NearestMiss, plan: Planned) -> str:
    """Beside the plan whose choice was changed."""
    words = outcome.detail.replace("at its best (", "(best: ")
    words = re.sub(r"; (the simpler plan was taken|\w+ comes first)", "", words)
    if outcome.peak_bytes is not None:
        words += f"; {gib(outcome.peak_bytes)} on the fullest GPU for {gib(plan.candidate.placed.peak_bytes)}"
    return words
