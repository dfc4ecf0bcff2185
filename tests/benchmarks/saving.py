"""What training waits for a checkpoint: written while it waits, and written beside it.

    python -m tests.benchmarks.saving [--folder FOLDER] [--rounds N] [--hidden N] [--depth N]

A pipeline of two ranks on this processor (bf16, ZeRO-1), both ways in turn in one run, into FOLDER (removed
afterwards). Medians of all rounds but the first, in which memory is got from the system.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Sequence
from typing import Any

from tests.model.ranks import run_ranks

MIB = 1024**2


def measured(folder: str, rounds: int, hidden: int, depth: int) -> dict[str, Any]:
    """Medians, and the bytes of a checkpoint."""
    job = {"folder": folder, "rounds": rounds + 1, "hidden": hidden, "depth": depth}
    ranks = run_ranks("tests.benchmarks.saving_rank", 2, job, timeout_seconds=1800)
    first = ranks[0]
    saves = {way: found[1:] for way, found in first["saves"].items()}

    def median(way: str, key: str) -> float:
        return float(statistics.median(save[key] for save in saves[way]))

    return {
        "rounds": rounds,
        "checkpoint_bytes": saves["waiting"][0]["bytes"],
        "copied_bytes_by_rank": [rank["held_bytes"] for rank in ranks],
        "waiting_seconds": median("waiting", "blocking_seconds"),
        "beside_seconds": median("beside", "blocking_seconds"),
        "first_beside_seconds": first["saves"]["beside"][0]["blocking_seconds"],
        "background_seconds": median("beside", "background_seconds"),
        "step_seconds": statistics.median(first["steps"]["undisturbed"]),
        "step_seconds_while_written": statistics.median(first["steps"]["beside"]),
        "steps_while_written": len(first["steps"]["beside"]) / (rounds + 1),
    }


def text(figures: dict[str, Any]) -> str:
    size = figures["checkpoint_bytes"] / MIB
    extra = figures["step_seconds_while_written"] - figures["step_seconds"]
    slower = extra * figures["steps_while_written"]
    copies = " and ".join(f"{copied / MIB:.0f}" for copied in figures["copied_bytes_by_rank"])
    return "\n".join(
        [
            f"checkpoint of {size:.0f} MiB, medians of {figures['rounds']} saves in each way",
            f"  written while training waits     {figures['waiting_seconds']:.2f} s",
            f"  written beside it: copying       {figures['beside_seconds']:.2f} s"
            f"  (the first time {figures['first_beside_seconds']:.2f} s)",
            f"                     writing       {figures['background_seconds']:.2f} s",
            f"  a step                           {figures['step_seconds']:.3f} s",
            f"  a step while files are written   {figures['step_seconds_while_written']:.3f} s  "
            f"({figures['steps_while_written']:.1f} steps a save, {slower:.2f} s more in all)",
            f"  host memory that copies keep     {copies} MiB",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--folder", help="default: a new one where temporary files lie")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--depth", type=int, default=8)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        figures = measured(folder, asked.rounds, asked.hidden, asked.depth)
    print(json.dumps(figures, indent=2) if asked.json else text(figures))


if __name__ == "__main__":
    main()
