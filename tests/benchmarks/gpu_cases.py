"""Measures the runs of tests/gpu_cases.py on this machine's GPU, as `vdsgen launch` runs them.

    vdsgen scan --out lab.yaml
    python -m tests.benchmarks.gpu_cases --lab lab.yaml --out runs/gpu [--steps 8] [NAME...]

Writes OUT/NAME (the rendered directory), OUT/runs/NAME and, run by run, OUT/measured.jsonl. Clips lie in
data/clips (`python -m vdsgen.model.data.fetch_demo --out data/clips`); the article's models need the encoders
that their experiment names, any that have those sizes: what they give is kept in data/cache.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.gpu_cases import CASES, Case
from vdsgen.model.json_lines import read_lines
from vdsgen.spec.run import WARM_UP_STEPS

TIMES = ("forward_seconds", "backward_seconds", "optimizer_seconds")


def measured(run: Path) -> dict[str, Any]:
    """A run of docs/measured/gpu: the peak of all steps, and the times of those after the first ones."""
    steps = read_lines(run / "metrics.jsonl")
    return {
        "peak_bytes": max(step["peak_memory_bytes"][0] for step in steps),
        "steps": [
            {
                "step_seconds": round(step["step_seconds"], 4),
                "data_seconds": round(step["data_seconds"], 4),
                **{key: round(step["stages"][0][key], 4) for key in TIMES},
            }
            for step in steps[WARM_UP_STEPS:]
        ],
    }


def run_case(case: Case, lab: Path, out: Path, steps: int) -> dict[str, Any]:
    """Renders and trains. A run that fails is told with its exit code."""
    pins = [word for override in case.overrides for word in ("--set", override)]
    directory, run = out / case.name, out / "runs" / case.name
    commands = (
        ["generate", str(case.file), "--lab", str(lab), "--out", str(directory), *pins],
        ["launch", str(directory), "--output", str(run), "--measure", "--steps", str(steps)],
    )
    for command in commands:
        ended = subprocess.run([sys.executable, "-m", "vdsgen", *command], check=False)
        if ended.returncode:
            return {"case": case.name, "failed": command[0], "exit_code": ended.returncode}
    return {"case": case.name, **measured(run)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="cases; default: all")
    parser.add_argument("--lab", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=8)
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    failed = 0
    with (chosen.out / "measured.jsonl").open("a", encoding="utf-8") as file:
        for case in CASES:
            if chosen.names and case.name not in chosen.names:
                continue
            result = run_case(case, chosen.lab, chosen.out, chosen.steps)
            file.write(json.dumps(result) + "\n")
            file.flush()
            failed += "failed" in result
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
