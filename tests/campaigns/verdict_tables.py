"""The page on what changed settings do, out of what tests/campaigns/verdicts.py measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

LOADERS = ("deepspeed", "vdsgen")
Row = Mapping[str, Any]


def resumes(row: Row, by: str) -> str:
    """In a word: as it is, converted, other states, or refused."""
    found = row["resumed"][by]
    if "error" in found:
        return "refused"
    if found["other_states"]:
        return "other states"
    return "converted" if found["converted"] else "as it is"


def is_wrong(row: Row, by: str) -> bool:
    """Other states, and nothing was said of it: what is converted is told to be."""
    return resumes(row, by) == "other states" and not row["resumed"][by]["converted"]


def is_overruled(row: Row) -> bool:
    """The change does something to a run, and nothing to one that is resumed."""
    return not row["same_weights"] and all(row["resumed"][by].get("as_before", False) for by in LOADERS)


def section(figures: Mapping[str, Any]) -> str:
    trained = [row for rows in figures["topics"].values() for row in rows if "refused" not in row]
    same = [row for row in trained if row["same_weights"]]
    count = sum(map(len, figures["topics"].values()))
    lines = [
        "## Measured",
        "",
        f"{count} pairs of engine configs that differ in one thing, each trained for {figures['steps']} "
        "steps on the same clips from the same weights: a tiny model, one to four ranks. *Weights*: all fp32 "
        "weights after the last step, compared to the last bit. Differences are relative, the largest of all "
        f"steps. Then the old side's checkpoint of step {figures['saved']} goes on under the new config, in "
        "engines that began with other weights: loaded by DeepSpeed itself, and as `vdsgen launch --resume` "
        "loads it; all weights and moments are compared with those that the old side's ranks had in memory.",
        "",
        f"Of {count}, {len(same)} left every weight as it was, {len(trained) - len(same)} did not, and "
        f"{count - len(trained)} are refused by the engine.",
        "",
        *_noted(trained),
    ]
    for topic, rows in figures["topics"].items():
        lines += ["", f"### {topic}", "", *_table(rows)]
    return "\n".join(lines)


def _noted(trained: Sequence[Row]) -> Iterator[str]:
    yield from _listed(
        "Changes that do nothing to a run that is resumed, where the checkpoint's own values hold: it goes "
        "on as the old side would have, to the last bit",
        trained,
        is_overruled,
    )
    for by, words in zip(LOADERS, ("DeepSpeed", "`vdsgen launch --resume`"), strict=True):
        yield from _listed(
            f"{words} loads without a word what is not the saved states",
            trained,
            lambda row, by=by: is_wrong(row, by),  # type: ignore[misc]
        )


def _listed(words: str, rows: Sequence[Row], holds: Callable[[Row], bool]) -> Iterator[str]:
    found = [row["pair"] for row in rows if holds(row)]
    yield f"- {words}: {'; '.join(found) or 'none'}."


def _table(rows: Sequence[Row]) -> Iterator[str]:
    yield "| what changes | weights | losses | gradient norms | DeepSpeed resumes | `launch --resume` |"
    yield "|---|---|---|---|---|---|"
    for row in rows:
        if "refused" in row:
            yield f"| {row['pair']} | refused: {row['refused']} | | | | |"
            continue
        cells = [
            row["pair"],
            "same bits" if row["same_weights"] else "other",
            shown(row["loss_difference"]),
            shown(row["norm_difference"]),
            *(resumes(row, by) for by in LOADERS),
        ]
        yield "| " + " | ".join(cells) + " |"


def shown(difference: float | None) -> str:
    if difference is None:
        return "not finite"
    return f"{difference:.1e}" if difference else "0"
