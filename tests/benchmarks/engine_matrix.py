"""Measures real DeepSpeed engines on this processor in every mode of the matrix.

    python -m tests.benchmarks.engine_matrix --out tests/cost/data/engine_matrix.json

Builds the trainer's engine around the bundled model on one to four ranks for each case, trains two steps,
and writes the bytes that tensors took in the second, by component. Takes about half an hour on two cores;
interrupted, it goes on where it was. `--again TEXT` measures the cases again whose name holds the text.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

from tests.cost.engine_cases import is_allowed, run_ranks
from tests.cost.matrix_cases import MatrixCase, matrix, scaled_defaults, worker_case
from vdsgen.files import write_atomically

CASES_A_START = 20
"""Cases that one group of ranks measures before it ends and what it measured is written."""
SECONDS_A_START = 1800


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON file, read and completed")
    parser.add_argument("--again", default=None, help="measure these cases again, by a part of their name")
    arguments = parser.parse_args()
    known = json.loads(arguments.out.read_text())["cases"] if arguments.out.exists() else {}
    names = [case.name for case in matrix()]
    known = {name: known[name] for name in names if name in known}
    if arguments.again is not None:
        known = {name: answer for name, answer in known.items() if arguments.again not in name}
    missing = [case for case in matrix() if case.name not in known]
    started, done = time.monotonic(), 0
    for cases in batches(missing):
        known |= measure(cases)
        done += len(cases)
        found = {name: known[name] for name in names if name in known}
        write_atomically(arguments.out, document(found).encode())
        left = (time.monotonic() - started) / done * (len(missing) - done)
        print(f"{len(known)} of {len(names)} cases, {left / 60:.0f} min left", file=sys.stderr, flush=True)


def batches(cases: Sequence[MatrixCase]) -> Iterator[list[MatrixCase]]:
    """Cases that the same ranks measure in turn. One that is refused comes last: it may leave something."""
    for _, group in groupby(cases, key=lambda case: case.settings.world_size):
        ordered = sorted(group, key=lambda case: not is_allowed(case.settings))
        for start in range(0, len(ordered), CASES_A_START):
            yield ordered[start : start + CASES_A_START]


def measure(cases: Sequence[MatrixCase]) -> dict[str, Any]:
    """By name of the case: the stages' bytes, or the engine's refusal."""
    with scaled_defaults():
        inputs = [
            {**worker_case(case.settings), "may_refuse": not is_allowed(case.settings)} for case in cases
        ]
    with tempfile.TemporaryDirectory() as folder:
        by_rank = run_ranks(cases[0].settings.world_size, inputs, Path(folder), SECONDS_A_START)
    answers = zip(*by_rank, strict=True)
    return {case.name: record(ranks) for case, ranks in zip(cases, answers, strict=True)}


def record(ranks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of each stage, the rank with the highest peak."""
    refused = next((answer["refused"] for answer in ranks if "refused" in answer), None)
    if refused is not None:
        return {"refused": " ".join(refused.split())}
    stages = sorted({answer["stage"] for answer in ranks})
    highest = [
        max((answer for answer in ranks if answer["stage"] == stage), key=lambda answer: answer["peak"])
        for stage in stages
    ]
    return {
        "optimizer": highest[0]["optimizer"],
        "stages": [
            {
                **{f"{name}_bytes": size for name, size in sorted(answer["bytes"].items())},
                "live_bytes": answer["live_bytes"],
                **{f"{name}_peak_bytes": size for name, size in answer["peaks"].items()},
                "checksum": round(answer["checksum"], 4),
            }
            for answer in highest
        ],
    }


def document(cases: dict[str, Any]) -> str:
    """One line a case and stage."""
    releases = {name: version(name).split("+")[0] for name in ("deepspeed", "torch")}
    lines = [f"  {json.dumps(name)}: {_case(answer)}" for name, answer in cases.items()]
    return f'{{"releases": {json.dumps(releases)},\n "cases": {{\n' + ",\n".join(lines) + "\n}}\n"


def _case(answer: dict[str, Any]) -> str:
    if "refused" in answer:
        return json.dumps(answer)
    stages = ",\n    ".join(json.dumps(stage) for stage in answer["stages"])
    return f'{{"optimizer": "{answer["optimizer"]}", "stages": [\n    {stages}]}}'


if __name__ == "__main__":
    main()
