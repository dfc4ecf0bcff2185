"""What a change of a config comes to: both sides trained, and the old one's checkpoint resumed under the new.

python -m tests.campaigns.verdicts [--only WORDS]...

For each pair of tests/campaigns/verdict_pairs.py: losses, gradient norms and, to the last bit, all weights
after the same steps; then the checkpoint of the old side under the new config, once loaded by DeepSpeed
itself and once as `vdsgen launch --resume` does it, with all states against those that the old side's ranks
had in memory.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.campaigns.figures import REVIEWS, read, write
from tests.campaigns.replans import TOLERANCES
from tests.campaigns.verdict_pairs import Config, Pair, all_pairs
from tests.campaigns.verdict_tables import LOADERS, section
from tests.model.ranks import run_ranks
from tests.model.universal.layouts import Case, kind_of

COMMAND = "python -m tests.campaigns.verdicts"
SAVED, STEPS = 3, 6
TIMEOUT_SECONDS = 1800
WORKER = "tests.campaigns.verdicts_worker"


class Kind(NamedTuple):
    """Cases that one start of ranks can train after one another, in this order."""

    ranks: int
    is_pipelined: bool
    is_split: bool
    """Between tensor-parallel ranks, whose groups stay in the process."""
    is_stage_3: bool
    """Whose linear layers stay in the process."""


def run(cases: Sequence[Case], folder: Path) -> dict[str, list[dict[str, Any]]]:
    """What each rank says, by the case's name."""
    by_kind: dict[Kind, list[Case]] = {}
    for case in cases:
        by_kind.setdefault(kind(case), []).append(case)
    found: dict[str, list[dict[str, Any]]] = {}
    for one, own in sorted(by_kind.items()):
        began = time.monotonic()
        said = run_ranks(WORKER, one.ranks, {"cases": own, "folder": str(folder)}, TIMEOUT_SECONDS)
        found |= {case["name"]: [rank[index] for rank in said] for index, case in enumerate(own)}
        print(f"{one}: {len(own)} cases, {time.monotonic() - began:.0f} s", flush=True)
    return found


def kind(case: Case) -> Kind:
    config = case["config"]
    is_split = config["pipeline"]["tensor_parallel_size"] > 1
    return Kind(*kind_of(case), is_split, config["zero_optimization"]["stage"] == 3)


def names_of(pairs: Sequence[Pair]) -> dict[str, str]:
    """A name for each config that is in a pair, by what it says."""
    sides = dict.fromkeys(said(side) for pair in pairs for side in (pair.old, pair.new))
    return {side: f"side-{index}" for index, side in enumerate(sides)}


def said(config: Config) -> str:
    return json.dumps(config, sort_keys=True)


def rows(pairs: Sequence[Pair], folder: Path) -> list[dict[str, Any]]:
    names = names_of(pairs)
    straight = run(
        [
            {"name": name, "config": json.loads(side), "steps": STEPS, "save_at": SAVED}
            for side, name in names.items()
        ],
        folder,
    )
    resumed = run(
        [
            {
                "name": f"{pair} {by}",
                "config": pair.new,
                "old": pair.old,
                "source": names[said(pair.old)],
                "saved_at": SAVED,
                "steps": STEPS,
                "by": by,
            }
            for pair in pairs
            for by in LOADERS
        ],
        folder,
    )
    return [
        row(
            pair,
            straight[names[said(pair.old)]],
            straight[names[said(pair.new)]],
            {by: resumed[f"{pair} {by}"] for by in LOADERS},
        )
        for pair in pairs
    ]


def row(
    pair: Pair,
    old: Sequence[Mapping[str, Any]],
    new: Sequence[Mapping[str, Any]],
    resumed: Mapping[str, Sequence[Mapping[str, Any]]],
) -> dict[str, Any]:
    first = {"pair": str(pair), "precision": pair.precision}
    before, after = old[0], new[0]
    assert "error" not in before, f"{pair}: {before['error']}"
    if "error" in after:
        return first | {"refused": after["error"]}
    differences = [differ(before["figures"], after["figures"], column) for column in range(4)]
    return first | {
        "same_weights": before["weights"] == after["weights"],
        "loss_difference": differences[0],
        "norm_difference": differences[1],
        "same_rates": differences[3] == 0,
        "within_rounding": differences[0] is not None and differences[0] <= TOLERANCES[pair.precision],
        "optimizers": [side["optimizer"] for side in (before, after)],
        "resumed": {by: loaded(ranks, before["figures"][SAVED:]) for by, ranks in resumed.items()},
    }


def differ(old: Sequence[Sequence[float]], new: Sequence[Sequence[float]], column: int) -> float | None:
    """The largest difference of a figure over all steps, relative; None where one is no number."""
    largest = 0.0
    for mine, theirs in zip(old, new, strict=True):
        was, now = mine[column], theirs[column]
        if was != now:
            largest = max(largest, abs(now - was) / (abs(was) or 1.0))
    return largest if largest < float("inf") else None


def loaded(ranks: Sequence[Mapping[str, Any]], straight: Sequence[Sequence[float]]) -> dict[str, Any]:
    """How going on from the checkpoint went: the states of all ranks against the saved ones, and what
    followed against the old side's `straight` steps."""
    errors = [rank["error"] for rank in ranks if "error" in rank]
    if errors:
        return {"error": errors[0]}
    kinds = {state.partition(" ")[0] for rank in ranks for state in rank["other"]}
    return {
        "converted": any(rank.get("converted", False) for rank in ranks),
        "other_states": sorted(kinds),
        "furthest": max(rank["furthest"] for rank in ranks),
        "same_scalars": all(rank["same_scalars"] for rank in ranks),
        "as_before": [list(one) for one in ranks[0]["figures"]] == [list(one) for one in straight],
    }


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--only", action="append", default=[], metavar="WORDS", help="pairs with WORDS in their names alone"
    )
    only = parser.parse_args().only
    topics = all_pairs()
    everything = [pair for own in topics.values() for pair in own]
    chosen = [pair for pair in everything if not only or any(words in str(pair) for words in only)]
    folder = Path(tempfile.mkdtemp(prefix="verdicts-"))
    try:
        found = {one["pair"]: one for one in rows(chosen, folder)}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    kept = read("verdicts", REVIEWS)["figures"]["topics"].values() if only else ()
    by_name = {one["pair"]: one for own in kept for one in own} | found
    figures = {
        "steps": STEPS,
        "saved": SAVED,
        "tolerances": TOLERANCES,
        "topics": {topic: [by_name[str(pair)] for pair in own] for topic, own in topics.items()},
    }
    write("verdicts", COMMAND, figures, REVIEWS)
    print(section(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
