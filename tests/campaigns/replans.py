"""Layouts of a tiny model's ranks go on in other ones, in three precisions.

python -m tests.campaigns.replans

For each pair a checkpoint after step 3 is resumed in the other layout, by an engine that began with other
weights: all states against those that the first layout's ranks had in memory, and the losses of three more
steps against the run that was not interrupted.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.campaigns.figures import write
from tests.model.universal.layouts import EMA, Case, config, run_cases

COMMAND = "python -m tests.campaigns.replans"
SAVED, STEPS = 3, 6
TIMEOUT_SECONDS = 1800


class Layout(NamedTuple):
    stages: int
    data: int
    zero_stage: int

    def __str__(self) -> str:
        return f"{self.stages} x {self.data}, ZeRO-{self.zero_stage}"


# ZeRO-3 last: once it is built, a process has its linear layers, which round otherwise.
LAYOUTS = (
    Layout(2, 2, 0), Layout(2, 2, 1), Layout(4, 1, 1), Layout(2, 1, 0), Layout(1, 2, 0), Layout(1, 2, 1),
    Layout(1, 2, 2), Layout(1, 1, 0), Layout(1, 1, 1), Layout(1, 2, 3), Layout(1, 4, 3),
)  # fmt: skip
SOURCES = (Layout(2, 2, 1), Layout(4, 1, 1), Layout(1, 2, 0), Layout(1, 2, 2), Layout(1, 4, 3))
"""An optimizer of each kind, and each way to cut what it holds."""
LARGE = {"hidden_size": 768, "heads": 12, "mlp_hidden_size": 3072}
"""A model whose conversion takes longer than its beginning and end."""
TOLERANCES = {"fp32": 2e-6, "bf16": 2e-2, "fp16": 2e-3}
"""Of losses, relative: about two units in the last place; of fp32 sixteen."""


def config_of(layout: Layout, precision: str) -> dict[str, Any]:
    """Gradients of bf16 add up in fp32 where the engine does that, under ZeRO."""
    sums = ", fp32 sums" if precision == "bf16" and layout.zero_stage else ""
    return config(*layout, precision + sums, **EMA)


def pairs(precision: str, folder: Path) -> Iterator[dict[str, Any]]:
    """A row of figures for each."""
    saved = [
        {"name": str(one), "config": config_of(one, precision), "save_at": SAVED, "steps": STEPS}
        for one in SOURCES
    ]
    straight = run_cases(saved, folder, TIMEOUT_SECONDS)
    cases: list[Case] = [
        {
            "name": f"{source} > {target}",
            "source": str(source),
            "config": config_of(target, precision),
            "steps": STEPS,
        }
        for target in LAYOUTS
        for source in SOURCES
        if source != target
    ]
    resumed = run_cases(cases, folder, TIMEOUT_SECONDS)
    for case in cases:
        yield row(case, resumed[case["name"]], straight[case["source"]][0]["figures"][SAVED:], precision)


def row(
    case: Case, ranks: Sequence[Mapping[str, Any]], straight: Sequence[Sequence[float]], precision: str
) -> dict[str, Any]:
    first, figures = ranks[0], ranks[0]["figures"]
    assert len(figures) == len(straight) == STEPS - SAVED
    return {
        "from": case["source"],
        "to": case["name"].partition(" > ")[2],
        "precision": precision,
        "tensors": sum(first["counts"].values()),
        "other_tensors": max(len(rank["other"]) for rank in ranks),
        "same_scalars": all(rank["same_scalars"] and rank["adam_steps"] == SAVED for rank in ranks),
        "same_rates": all(mine[2:] == theirs[2:] for mine, theirs in zip(figures, straight, strict=True)),
        "loss_difference": difference(figures, straight, 0),
        "norm_difference": difference(figures, straight, 1),
        "resume_seconds": max(rank["resume_seconds"] for rank in ranks),
    }


def large(folder: Path) -> dict[str, Any]:
    """Seconds that a larger model's checkpoint takes."""
    first = {"name": "large", "config": config_of(Layout(2, 2, 1), "bf16"), "save_at": 1, "steps": 1}
    then = {"name": "resumed", "source": "large", "config": config_of(Layout(1, 2, 2), "bf16"), "steps": 1}
    ranks = run_cases([first | {"sizes": LARGE}, then | {"sizes": LARGE}], folder, TIMEOUT_SECONDS)["resumed"]
    files = [path for path in (folder / "large" / "universal").rglob("*") if path.is_file()]
    return {
        "from": str(Layout(2, 2, 1)),
        "to": str(Layout(1, 2, 2)),
        "files": len(files),
        "converted_bytes": sum(path.stat().st_size for path in files),
        "convert_seconds": max(rank["convert_seconds"] for rank in ranks),
        "resume_seconds": max(rank["resume_seconds"] for rank in ranks),
        "other_tensors": max(len(rank["other"]) for rank in ranks),
    }


def difference(figures: Sequence[Sequence[float]], straight: Sequence[Sequence[float]], column: int) -> float:
    """The largest, relative."""
    both = zip(figures, straight, strict=True)
    return float(max(abs(mine[column] - theirs[column]) / abs(theirs[column]) for mine, theirs in both))


def is_good(found: Mapping[str, Any]) -> bool:
    within = found["loss_difference"] <= TOLERANCES[found["precision"]]
    return bool(found["other_tensors"] == 0 and found["same_scalars"] and found["same_rates"] and within)


def main() -> int:
    began, rows = time.monotonic(), []
    for precision in TOLERANCES:
        folder = Path(tempfile.mkdtemp(prefix="replans-"))
        try:
            rows += list(pairs(precision, folder))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        print(f"{precision}: {len(rows)} pairs so far, {time.monotonic() - began:.0f} s", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="replans-"))
    try:
        measured = large(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    lost = [found for found in rows if not is_good(found)]
    for found in lost:
        print(f"lost: {found}")
    figures = {
        "layouts": [str(one) for one in LAYOUTS],
        "steps": STEPS - SAVED,
        "tolerances": TOLERANCES,
        "pairs": rows,
        "large": measured,
    }
    write("replans", COMMAND, figures)
    print(section(figures))
    return 1 if lost or measured["other_tensors"] else 0


def section(figures: Mapping[str, Any]) -> str:
    rows, layouts = figures["pairs"], figures["layouts"]
    sources = len({found["from"] for found in rows})
    lines = [
        "## Other layouts of ranks",
        "",
        f"Checkpoints of {sources} layouts, pipeline stages x data ranks, each resumed in {len(layouts) - 1} "
        f"others ({len(rows)} pairs in all precisions) by engines that began with other weights: weights, "
        "both moments and the weights' average compared with what the first layout's ranks had in memory, "
        f"and the losses of {figures['steps']} more steps with the uninterrupted run's. Counters, learning "
        "rates and fp16's loss scales have to be equal too.",
        "",
        "| precision | pairs | tensors compared | not equal to the last bit | largest loss difference "
        "| allowed |",
        "|---|---|---|---|---|---|",
    ]
    for precision, allowed in figures["tolerances"].items():
        own = [found for found in rows if found["precision"] == precision]
        lines.append(
            f"| {precision} | {len(own)} | {sum(found['tensors'] for found in own):,} "
            f"| {sum(found['other_tensors'] for found in own)} "
            f"| {max(found['loss_difference'] for found in own):.1e} | {allowed:.0e} |"
        )
    lines += ["", "Largest loss difference by the layout that went on:", ""]
    lines += [
        "| | " + " | ".join(figures["tolerances"]) + " |",
        "|---" * (1 + len(figures["tolerances"])) + "|",
    ]
    for layout in layouts:
        of_each = [
            max(f["loss_difference"] for f in rows if f["to"] == layout and f["precision"] == precision)
            for precision in figures["tolerances"]
        ]
        lines.append(f"| {layout} | " + " | ".join(f"{value:.1e}" for value in of_each) + " |")
    one = figures["large"]
    lines += [
        "",
        f"Failed: {sum(not is_good(found) for found in rows)}. A larger model, {one['from']} to {one['to']} "
        f"in bf16 with an average, {one['converted_bytes'] / 1e9:.2f} GB in {one['files']:,} files: "
        f"converted in {one['convert_seconds']:.1f} s, resumed in {one['resume_seconds']:.1f} s in all.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
